# Contract of _fleet_state.pyx towards other kernels: nothing of it is cimported.
