/* Marks a pass over whole columns: compiled once per instruction set, and chosen when the module is loaded. */
#ifndef HOSTLER_CLONES_H
#define HOSTLER_CLONES_H

/* Choosing at load time takes IFUNC, which glibc has and musl has not; __GLIBC__ is defined by its headers alone. */
#include <stdlib.h>

#if defined(__GLIBC__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define HOSTLER_CLONES __attribute__((target_clones("avx512f", "avx2", "default"), noinline, unused))
#else
#define HOSTLER_CLONES __attribute__((unused))
#endif

#endif
