"""The specification of the fleet, ranking and batch kernels, and their agreement with the Python twins."""
