# Contract of _gather.pyx towards other kernels: nothing of it is cimported.
