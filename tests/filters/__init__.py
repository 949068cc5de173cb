"""Nova's filters: a table per rule, and the properties that all of them have."""
