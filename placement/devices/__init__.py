"""Rules of one host for PCI devices and GPUs; values in, values out."""
