"""The forms in which NUMA cells and guests come to the NUMA kernel. For kernels; Python can call nothing here."""
