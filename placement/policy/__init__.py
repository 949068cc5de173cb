"""Which filters and weighers run, in which order, under which options."""
