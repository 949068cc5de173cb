/* Values in MessagePack, each in its shortest form, as msgspec writes them. */
#ifndef HOSTLER_PACK_H
#define HOSTLER_PACK_H

#include <stdint.h>
#include <string.h>

enum {
    HOSTLER_PACKED_UUID = 38,  /* bytes of a uuid in text */
    HOSTLER_PACKED_FLOAT = 9,
};

static inline char *hostler_put_big_endian(char *out, uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) {
        *out++ = (char)(value >> (8 * i));
    }
    return out;
}

static inline int hostler_packed_uint_size(uint64_t value) {
    return value < 1u << 7 ? 1 : value < 1u << 8 ? 2 : value < 1u << 16 ? 3 : value <= UINT32_MAX ? 5 : 9;
}

static inline char *hostler_pack_uint(char *out, uint64_t value) {
    int size = hostler_packed_uint_size(value);
    if (size > 1) {
        *out++ = (char)(size == 2 ? 0xcc : size == 3 ? 0xcd : size == 5 ? 0xce : 0xcf);
    }
    return hostler_put_big_endian(out, value, size > 1 ? size - 1 : 1);
}

static inline char *hostler_pack_float(char *out, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    *out++ = (char)0xcb;
    return hostler_put_big_endian(out, bits, 8);
}

static inline int64_t hostler_packed_text_size(int64_t length) {
    return length + (length < 32 ? 1 : length < 1 << 8 ? 2 : length < 1 << 16 ? 3 : 5);
}

/* `length` bytes of UTF-8, fewer than 2**32. */
static inline char *hostler_pack_text(char *out, const char *text, int64_t length) {
    if (length < 32) {
        *out++ = (char)(0xa0 | length);
    } else if (length < 1 << 8) {
        *out++ = (char)0xd9;
        out = hostler_put_big_endian(out, (uint64_t)length, 1);
    } else if (length < 1 << 16) {
        *out++ = (char)0xda;
        out = hostler_put_big_endian(out, (uint64_t)length, 2);
    } else {
        *out++ = (char)0xdb;
        out = hostler_put_big_endian(out, (uint64_t)length, 4);
    }
    memcpy(out, text, length);
    return out + length;
}

#endif
