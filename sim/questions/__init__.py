"""The questions of capacity planning, answered by runs."""
