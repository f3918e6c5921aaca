/* Counts the file operations of a process below one folder, and kills the process at one of them.
 * Loaded with LD_PRELOAD; nothing is counted before kill_arm(). Linux only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long count, at;
static int after;             /* 0: die before the operation; 1: after it, and in the middle of a write */
static char folder[4096];
static char tracked[65536];   /* descriptors that were opened for writing below the folder */

void kill_arm(long number, int die_after, const char *below) {
    count = 0, at = number, after = die_after;
    snprintf(folder, sizeof folder, "%s", below);
}

long kill_count(void) { return count; }

static void die(const char *name, const char *path) {
    dprintf(2, "killed %s %s, operation %ld: %s\n", after ? "after" : "before", name, count, path);
    raise(SIGKILL);
}

static int below(int dir, const char *path, char *full) {
    if (!folder[0] || !path) return 0;
    if (path[0] == '/' || dir == AT_FDCWD) snprintf(full, 8192, "%s", path);
    else {
        char link[64], base[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t size = readlink(link, base, sizeof base - 1);
        if (size < 0) return 0;
        base[size] = 0;
        snprintf(full, 8192, "%s/%s", base, path);
    }
    return strncmp(full, folder, strlen(folder)) == 0;
}

static int begins(const char *name, const char *path) { /* whether the process dies once the operation is done */
    if (++count != at) return 0;
    if (!after) die(name, path);
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

#define OPENED(call) \
    char full[8192]; \
    int counted = writes(flags) && below(dir, path, full), dies = counted && begins("open", full); \
    int fd = call; \
    if (fd >= 0 && fd < (int)sizeof tracked) tracked[fd] = counted; \
    if (dies) die("open", full); \
    return fd

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list args; va_start(args, flags); mode = va_arg(args, int); va_end(args); }

int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...); MODE(flags); int dir = AT_FDCWD; OPENED(real(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    REAL(int, open64, const char *, int, ...); MODE(flags); int dir = AT_FDCWD; OPENED(real(path, flags, mode));
}
int openat(int dir, const char *path, int flags, ...) {
    REAL(int, openat, int, const char *, int, ...); MODE(flags); OPENED(real(dir, path, flags, mode));
}
int openat64(int dir, const char *path, int flags, ...) {
    REAL(int, openat64, int, const char *, int, ...); MODE(flags); OPENED(real(dir, path, flags, mode));
}

#define FOPENED(name) \
    FILE *name(const char *path, const char *how) { \
        REAL(FILE *, name, const char *, const char *); \
        char full[8192]; \
        int counted = strpbrk(how, "wa+") && below(AT_FDCWD, path, full), dies = counted && begins("fopen", full); \
        FILE *file = real(path, how); \
        if (file && fileno(file) < (int)sizeof tracked) tracked[fileno(file)] = counted; \
        if (dies) die("fopen", full); \
        return file; \
    }
FOPENED(fopen)
FOPENED(fopen64)

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < (int)sizeof tracked) tracked[fd] = 0;
    return real(fd);
}

static int counts(int fd, const char *name) {
    return fd >= 0 && fd < (int)sizeof tracked && tracked[fd] && begins(name, "");
}

ssize_t write(int fd, const void *from, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (!counts(fd, "write")) return real(fd, from, size);
    real(fd, from, size / 2);
    die("write", "");
    return -1;
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (!counts(fd, "writev")) return real(fd, parts, number);
    real(fd, parts, 1);
    die("writev", "");
    return -1;
}
#define PWRITE(name) \
    ssize_t name(int fd, const void *from, size_t size, off_t place) { \
        REAL(ssize_t, name, int, const void *, size_t, off_t); \
        if (!counts(fd, #name)) return real(fd, from, size, place); \
        real(fd, from, size / 2, place); \
        die(#name, ""); \
        return -1; \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define ON_FD(name, parameters, arguments) \
    int name parameters { \
        REAL(int, name, __typeof__(fd), ...); \
        int dies = counts(fd, #name), result = ((int (*) parameters)real) arguments; \
        if (dies) die(#name, ""); \
        return result; \
    }
ON_FD(fsync, (int fd), (fd))
ON_FD(fdatasync, (int fd), (fd))
ON_FD(ftruncate, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, (int fd, off_t size), (fd, size))

#define ON_PATH(name, dir, path, parameters, arguments) \
    int name parameters { \
        REAL(int, name, void *, ...); \
        char full[8192]; \
        int dies = below(dir, path, full) && begins(#name, full), result = ((int (*) parameters)real) arguments; \
        if (dies) die(#name, full); \
        return result; \
    }
ON_PATH(rename, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(renameat, there, to, (int here, const char *from, int there, const char *to), (here, from, there, to))
ON_PATH(renameat2, there, to, (int here, const char *from, int there, const char *to, unsigned flags), (here, from, there, to, flags))
ON_PATH(unlink, AT_FDCWD, path, (const char *path), (path))
ON_PATH(unlinkat, dir, path, (int dir, const char *path, int flags), (dir, path, flags))
ON_PATH(rmdir, AT_FDCWD, path, (const char *path), (path))
ON_PATH(mkdir, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, dir, path, (int dir, const char *path, mode_t mode), (dir, path, mode))
ON_PATH(truncate, AT_FDCWD, path, (const char *path, off_t size), (path, size))
ON_PATH(truncate64, AT_FDCWD, path, (const char *path, off_t size), (path, size))
ON_PATH(chmod, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(fchmodat, dir, path, (int dir, const char *path, mode_t mode, int flags), (dir, path, mode, flags))
