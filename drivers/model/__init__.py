"""A back end in memory or in a file, for tests, demonstrations and applications without a cloud: nodes, guests, pools
and volumes as values, with delays and faults that a seed decides."""
