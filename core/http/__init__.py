"""The OpenStack Placement API over HTTP: what clients send and get; the rules themselves are in placement/api."""
