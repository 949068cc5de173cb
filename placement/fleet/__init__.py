"""Who is there and what is left: rows, columns, change log and consumers. Decides nothing."""
