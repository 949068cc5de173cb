/* Marks a pass over whole columns: compiled once per instruction set, and chosen when the module is loaded. */
#ifndef HOSTLER_CLONES_H
#define HOSTLER_CLONES_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define HOSTLER_CLONES __attribute__((target_clones("avx512f", "avx2", "default"), noinline, unused))
#else
#define HOSTLER_CLONES __attribute__((unused))
#endif

#endif
