"""The documents: their code runs, their tables are current, their links lead somewhere."""
