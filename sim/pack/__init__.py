"""Vector bin packing: how few equal hosts hold a given set of guests that never leave."""
