"""State of the fleet: rows, columns, change log, providers and consumers. Makes no placement decisions."""
