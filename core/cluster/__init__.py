"""Several members with one state: one is elected and takes commands, the others follow its journal in etcd."""
