# Contract of _batch.pyx towards other kernels: nothing of it is cimported.
