/* Preloaded into a daemon: makes its disk fail as the file named by HOSTLER_FAULTS says, for files below the folder
   named by HOSTLER_FAULTY_FOLDER. The first letter of the file's content counts:
   e: writes fail with EIO; n: with ENOSPC; s: every other write is cut in half, the next one fails with ENOSPC;
   f: syncs fail with EIO; r: writes fail with EROFS; h: syncs take until it is over; anything else: all is well.
   The wall clock is off by the seconds in the file named by HOSTLER_CLOCK_OFFSET, if there is one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char mode(int fd) {
    const char *control = getenv("HOSTLER_FAULTS"), *folder = getenv("HOSTLER_FAULTY_FOLDER");
    char link[64], path[4096], found = '-';
    if (!control || !folder) return '-';
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return '-';
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return '-';
    int file = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (file < 0) return '-';
    if (syscall(SYS_read, file, &found, 1) != 1) found = '-';
    syscall(SYS_close, file);
    return found;
}

/* -1: fail with errno set; else how much of `count` to write. */
static ssize_t permitted(int fd, size_t count) {
    static atomic_int turn;
    switch (mode(fd)) {
        case 'e': errno = EIO; return -1;
        case 'n': errno = ENOSPC; return -1;
        case 'r': errno = EROFS; return -1;
        case 's':
            if (atomic_fetch_add(&turn, 1) % 2) { errno = ENOSPC; return -1; }
            return count > 1 ? (ssize_t)(count / 2) : (ssize_t)count;
    }
    return (ssize_t)count;
}

ssize_t write(int fd, const void *data, size_t count) {
    ssize_t some = permitted(fd, count);
    return some < 0 ? -1 : syscall(SYS_write, fd, data, some);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    ssize_t some = permitted(fd, count);
    return some < 0 ? -1 : syscall(SYS_pwrite64, fd, data, some, at);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) { return pwrite64(fd, data, count, at); }

static int sync_fails(int fd) {
    char now;
    while ((now = mode(fd)) == 'h') usleep(10000);
    if (now != 'f' && now != 'e') return 0;
    errno = EIO;
    return 1;
}

int fsync(int fd) { return sync_fails(fd) ? -1 : syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_fails(fd) ? -1 : syscall(SYS_fdatasync, fd); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    const char *file = clock == CLOCK_REALTIME ? getenv("HOSTLER_CLOCK_OFFSET") : NULL;
    char text[32] = {0};
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result || !file) return result;
    int offset = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC);
    if (offset < 0) return result;
    if (syscall(SYS_read, offset, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
    syscall(SYS_close, offset);
    return result;
}
