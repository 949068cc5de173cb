"""etcd's v3 API: a client for trio over its JSON gateway, and its errors as a closed set."""
