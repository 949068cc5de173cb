/* What the hash tables do with bytes: hashing, UCS-4 to UTF-8, uuids in text. No Python here. */
#ifndef HOSTLER_TABLES_H
#define HOSTLER_TABLES_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void hostler_prefetch(const void *address) { __builtin_prefetch(address, 1, 1); }

static inline uint64_t hostler_read8(const unsigned char *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

static inline uint64_t hostler_read4(const unsigned char *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static inline uint64_t hostler_fold(uint64_t a, uint64_t b) {
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The process's secret: a caller that chooses names or uuids cannot choose where they lie in a table. Drawn when the kernel is
 * loaded; no answer depends on it, for no table is read in the order of its slots. */
static uint64_t hostler_key[4];

static inline void hostler_set_key(const unsigned char *random, size_t length) {
    if (length == sizeof(hostler_key))
        memcpy(hostler_key, random, length);
}

/* The plan of wyhash: 16 bytes a multiplication, both halves of the product folded, under the secret key. Never stored,
 * so byte order does not matter. */
static inline uint64_t hostler_hash_bytes(const char *text, size_t length) {
    const uint64_t k0 = hostler_key[0], k1 = hostler_key[1], k2 = hostler_key[2];
    const unsigned char *at = (const unsigned char *)text;
    size_t left = length;
    uint64_t a = 0, b = 0, hash = k0;
    while (left > 16) {
        hash = hostler_fold(hostler_read8(at) ^ k1, hostler_read8(at + 8) ^ hash);
        at += 16;
        left -= 16;
    }
    if (left >= 8) {
        a = hostler_read8(at);
        b = hostler_read8(at + left - 8);
    } else if (left >= 4) {
        a = hostler_read4(at);
        b = hostler_read4(at + left - 4);
    } else if (left) {
        a = (uint64_t)at[0] << 16 | (uint64_t)at[left >> 1] << 8 | at[left - 1];
    }
    return hostler_fold(k2 ^ length, hostler_fold(a ^ k1, b ^ hash));
}

/* Both words under the key, folded twice: the first product spreads each bit, the second hides its structure. */
static inline uint64_t hostler_hash_uuid(uint64_t hi, uint64_t lo) {
    return hostler_fold(hostler_fold(hi ^ hostler_key[0], lo ^ hostler_key[1]) ^ hostler_key[2], hostler_key[3]);
}

static inline uint64_t hostler_splitmix(uint64_t state) {
    state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    state = (state ^ state >> 27) * 0x94d049bb133111ebu;
    return state ^ state >> 31;
}

static inline int hostler_is_ascii(const char *text, size_t length) {
    const unsigned char *at = (const unsigned char *)text;
    uint64_t seen = 0;
    size_t i = 0;
    for (; i + 8 <= length; i += 8)
        seen |= hostler_read8(at + i);
    for (; i < length; i++)
        seen |= at[i];
    return (seen & 0x8080808080808080u) == 0;
}

/* Length of a NUL-padded item of `size` bytes or, with ucs4, of `size` code points. */
static inline ptrdiff_t hostler_unpadded_bytes(const char *item, ptrdiff_t size) {
    while (size > 0 && item[size - 1] == 0)
        size--;
    return size;
}

static inline ptrdiff_t hostler_unpadded_ucs4(const uint32_t *item, ptrdiff_t size) {
    while (size > 0 && item[size - 1] == 0)
        size--;
    return size;
}

/* Writes up to 4 * count bytes; returns how many, or -1 at a surrogate or what is no code point. */
static inline ptrdiff_t hostler_utf8_of_ucs4(const uint32_t *points, ptrdiff_t count, char *text) {
    unsigned char *out = (unsigned char *)text;
    for (ptrdiff_t i = 0; i < count; i++) {
        uint32_t point = points[i];
        if (point < 0x80) {
            *out++ = (unsigned char)point;
        } else if (point < 0x800) {
            *out++ = (unsigned char)(0xc0 | point >> 6);
            *out++ = (unsigned char)(0x80 | (point & 0x3f));
        } else if (point < 0x10000) {
            if (point >= 0xd800 && point < 0xe000)
                return -1;
            *out++ = (unsigned char)(0xe0 | point >> 12);
            *out++ = (unsigned char)(0x80 | (point >> 6 & 0x3f));
            *out++ = (unsigned char)(0x80 | (point & 0x3f));
        } else {
            if (point > 0x10ffff)
                return -1;
            *out++ = (unsigned char)(0xf0 | point >> 18);
            *out++ = (unsigned char)(0x80 | (point >> 12 & 0x3f));
            *out++ = (unsigned char)(0x80 | (point >> 6 & 0x3f));
            *out++ = (unsigned char)(0x80 | (point & 0x3f));
        }
    }
    return out - (unsigned char *)text;
}

/* Eight hexadecimal digits as a number; other bytes set high bits of `wrong`. Each byte is a lane: with the top bits
 * clear, adding 0x80 - c sets a lane's top bit where the byte is at least c, and no lane overflows into the next. */
static inline uint64_t hostler_parse_hex8(const unsigned char *text, uint64_t *wrong) {
    const uint64_t lanes = 0x0101010101010101u, top = 0x80 * lanes;
    uint64_t raw = le64toh(hostler_read8(text)), low = raw & ~top, lower = low | 0x20 * lanes;
    uint64_t digit = (low + (0x80 - '0') * lanes) & ~(low + (0x80 - '9' - 1) * lanes) & top;
    uint64_t letter = (lower + (0x80 - 'a') * lanes) & ~(lower + (0x80 - 'f' - 1) * lanes) & top;
    uint64_t value = (low & 0x0f * lanes) + 9 * (letter >> 7);
    *wrong |= (raw & top) | ((digit | letter) ^ top);
    value = (value << 4 | value >> 8) & 0x00ff00ff00ff00ffu;
    value = (value << 8 | value >> 16) & 0x0000ffff0000ffffu;
    return (value << 16 | value >> 32) & 0xffffffffu;
}

/* One byte per character: 8-4-4-4-12 digits, or 32. Returns 0, or -1 with nothing written. */
static inline int hostler_parse_uuid(const unsigned char *text, ptrdiff_t length, uint64_t *hi, uint64_t *lo) {
    unsigned char digits[32];
    uint64_t wrong = 0, first, second;
    if (length == 36) {
        if (text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
            return -1;
        memcpy(digits, text, 8);
        memcpy(digits + 8, text + 9, 4);
        memcpy(digits + 12, text + 14, 4);
        memcpy(digits + 16, text + 19, 4);
        memcpy(digits + 20, text + 24, 12);
        text = digits;
    } else if (length != 32) {
        return -1;
    }
    first = hostler_parse_hex8(text, &wrong) << 32 | hostler_parse_hex8(text + 8, &wrong);
    second = hostler_parse_hex8(text + 16, &wrong) << 32 | hostler_parse_hex8(text + 24, &wrong);
    if (wrong)
        return -1;
    *hi = first;
    *lo = second;
    return 0;
}

/* Writes 36 characters, no NUL. */
static inline void hostler_format_uuid(uint64_t hi, uint64_t lo, char *text) {
    static const char digit[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        uint64_t byte = (i < 8 ? hi : lo) >> (56 - 8 * (i & 7)) & 255;
        *text++ = digit[byte >> 4];
        *text++ = digit[byte & 15];
        if (i == 3 || i == 5 || i == 7 || i == 9)
            *text++ = '-';
    }
}

#endif
