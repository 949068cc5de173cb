"""Nova's scheduler RPC answered on the state of a service, without Nova: the place of nova-scheduler."""
