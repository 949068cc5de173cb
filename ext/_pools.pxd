"""Contract of the pools kernel: rows of the float64 pool block; ext/pool_constants.py says what each holds."""

cdef enum:
    TOTAL = 0
    FREE = 1
    ALLOCATED = 2
    PROVISIONED = 3
    RESERVED_PERCENTAGE = 4
    RATIO = 5
    THIN = 6
    BOUNDED = 7
    UPDATED = 8
    VOLUMES = 9
    ROOM_THIN = 10
    ROOM_THICK = 11
    VIRTUAL_THIN = 12
    VIRTUAL_THICK = 13
    ENDLESS = 14
    COUNTED = 15
    POOL_COLUMNS = 16
