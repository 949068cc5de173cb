"""The engine: fleet, requests, filters, weighers, candidates, groups and explanations, in plain Python and numpy."""
