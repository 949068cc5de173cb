"""The kernels: numbers in, numbers out; they know columns and bits, no names and no policies."""
