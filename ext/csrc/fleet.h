/* The arrays of the fleet kernel as C reads them: host columns, the change log and server groups. _fleet.pxd declares
 * them to Cython. */
#ifndef HOSTLER_FLEET_H
#define HOSTLER_FLEET_H

#include <stdint.h>

enum {
    /* Rows of the float64 host column block; placement/fleet/columns.py names them in this order. */
    FREE_RAM_MB = 0,
    FREE_VCPUS = 1,
    FREE_DISK_MB = 2,
    NUM_IO_OPS = 3,
    NUM_INSTANCES = 4,
    FAILED_BUILDS = 5,
    HYPERVISOR_VERSION = 6,
    PCI_WEIGHT = 7,
    VCPUS_USED = 8,
    VCPUS_TOTAL = 9,
    CPU_ALLOCATION_RATIO = 10,
    SERVICE_UP = 11,
    TOTAL_USABLE_RAM_MB = 12,
    RAM_ALLOCATION_RATIO = 13,
    LAST_SEEN_UP = 17, /* NaN if unknown; no other column has NaN */
};

typedef struct columns {
    int64_t capacity;    /* rows allocated; the stride of every 2-D block */
    int64_t rows;        /* rows in use or freed: all row ids are below */
    int32_t classes;     /* resource classes K */
    int64_t *avail;      /* [K, capacity] min(limit - used, max_unit); 0 without inventory */
    int64_t *used;       /* [K, capacity] */
    int64_t *limit;      /* [K, capacity] floor((total - reserved) * allocation_ratio) */
    int64_t *min_unit;   /* [K, capacity] */
    int64_t *max_unit;   /* [K, capacity] */
    int64_t *step_size;  /* [K, capacity] */
    double *host;        /* [C, capacity] see the enum above */
    int32_t *class_of;   /* [capacity] host class id: all static fields, interned */
    int64_t *generation; /* [capacity] provider generation */
    int32_t *first;      /* [capacity] first consumer on the row, -1 none */
    int32_t *log;        /* changed rows, oldest first */
    int64_t log_length;
    int64_t log_capacity;
    int64_t log_base; /* version of log[0] */
} columns_t;

typedef struct group {
    int32_t policy;  /* POLICY_* */
    int32_t at_most; /* max_server_per_host */
    int32_t count;
    int32_t capacity; /* a power of two */
    int32_t coming;   /* while a batch is checked: how many guests name the group */
    int32_t *rows;
    int32_t *members; /* members on rows[i] */
    int32_t *slots;   /* [2 * capacity] positions in rows by row, -1: empty; NULL while the group is small */
} group_t;

enum {
    NO_POLICY = 0,
    AFFINITY = 1,
    ANTI_AFFINITY = 2,
    SOFT_AFFINITY = 3,
    SOFT_ANTI_AFFINITY = 4,
};

#endif
