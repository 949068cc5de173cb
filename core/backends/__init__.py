"""Back ends: the values, errors and protocols that drivers implement, and how installed drivers are found."""
