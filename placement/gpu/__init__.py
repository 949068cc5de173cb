"""GPUs as nested providers: what a flavor asks of them, and what the nodes have left."""
