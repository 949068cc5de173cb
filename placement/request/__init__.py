"""A request turned into Placement's query, as Nova does."""
