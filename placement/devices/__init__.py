"""Rules of one host for PCI devices; values in, values out."""
