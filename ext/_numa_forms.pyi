"""The forms in which NUMA cells and guests come to the NUMA kernel; for other kernels, nothing is callable from Python."""
