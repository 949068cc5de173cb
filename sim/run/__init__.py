"""One run: a workload played on a fleet under a policy, and its outcome."""
