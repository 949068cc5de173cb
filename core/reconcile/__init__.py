"""The reconciler: compares what is desired of guests with what back ends have, and calls drivers until both agree. It
knows no state of its own that a crash could lose; what happened becomes a command."""
