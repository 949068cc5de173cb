"""The hash tables for names and uuids: on the kernel, on its twin with HOSTLER_PURE=1, and one against the other."""
