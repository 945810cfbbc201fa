/* Loaded into a server before its other libraries (LD_PRELOAD): moves its wall clock, lets its other clock run fast or
 * slow, and breaks its reads and syncs, as one page of shared memory says. The clock of the machine is never touched.
 * Counters in the page tell that it was asked.
 *
 * Compiled by the harness; see shim.rs for the page. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct page {
    _Atomic int64_t wall_offset_ns; /* added to the wall clock */
    _Atomic int64_t sync_delay_us;  /* before each sync */
    _Atomic int64_t sync_error;     /* errno of each sync; 0: none */
    _Atomic int64_t sync_lies;      /* syncs succeed and do nothing */
    _Atomic int64_t clock_asked;    /* how often an offset was added */
    _Atomic int64_t syncs_touched;  /* how often a sync was delayed, failed or left out */
    _Atomic int64_t syncs_to_fail;  /* how many syncs still fail; negative: all */
    _Atomic int64_t rate_ppm;       /* of the monotonic clock; 0: a million, as it is */
    _Atomic int64_t rate_asked;     /* how often a clock with another rate was asked */
    _Atomic int64_t gained_ns;      /* how far it is ahead of the true one */
    _Atomic int64_t read_error;     /* errno of reads of the node's files; 0: none */
    _Atomic int64_t read_every;     /* of so many reads one fails */
    _Atomic int64_t reads_seen;     /* while reads fail */
    _Atomic int64_t reads_failed;   /* how often one did */
};

static struct page *page;
static const char *data_dir;

static long (*real_syscall)(long, ...);

/* Rust's locks and parkers call the kernel through this. */
static long pass(long number, long a, long b, long c, long d, long e, long f) {
    if (!real_syscall) real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real_syscall(number, a, b, c, d, e, f);
}

__attribute__((constructor)) static void open_page(void) {
    const char *path = getenv("LCJL_SHIM");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    data_dir = getenv("LCJL_DATA");
    if (mapped != MAP_FAILED) page = mapped;
}

/* ---- Clocks ---- */

#define SECOND 1000000000LL
#define MILLION 1000000LL

static int is_wall(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

static int is_monotonic(clockid_t clock) {
    return clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW ||
           clock == CLOCK_BOOTTIME;
}

static int64_t nanos_of(const struct timespec *at) { return at->tv_sec * SECOND + at->tv_nsec; }

static struct timespec timespec_of(int64_t nanos) {
    struct timespec at = { nanos / SECOND, nanos % SECOND };
    return at;
}

static int (*real_clock_gettime)(clockid_t, struct timespec *);

static int true_clock(clockid_t clock, struct timespec *at) {
    if (!real_clock_gettime)
        real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real_clock_gettime ? real_clock_gettime(clock, at) : (int)pass(SYS_clock_gettime, clock, (long)at, 0, 0, 0, 0);
}

/* Since `since` the clock goes at `rate`; it showed `shown` then. Odd `turn`: being changed. A change of the rate moves
 * no time that has passed, so the clock never jumps. */
static _Atomic uint64_t turn;
static _Atomic int64_t since, shown, rate = MILLION;

static int64_t scaled(int64_t real, int64_t from, int64_t then, int64_t ppm) {
    return then + (int64_t)((__int128)(real - from) * ppm / MILLION);
}

static int64_t wanted_rate(void) {
    int64_t wanted = page ? page->rate_ppm : 0;
    return wanted > 0 ? wanted : MILLION;
}

static void take_up(int64_t wanted) {
    uint64_t seen = turn;
    if (seen % 2 || !atomic_compare_exchange_strong(&turn, &seen, seen + 1)) return;
    struct timespec at;
    if (rate != wanted && true_clock(CLOCK_MONOTONIC, &at) == 0) {
        int64_t real = nanos_of(&at);
        shown = turn == 1 ? real : scaled(real, since, shown, rate);
        since = real;
        rate = wanted;
    }
    turn = seen + 2;
}

/* All monotonic clocks are taken for one: they differ by a constant, which is kept. */
static void distort(struct timespec *at) {
    int64_t wanted = wanted_rate();
    if (rate != wanted) take_up(wanted);
    for (int tries = 0; turn != 0 && tries < 1000; tries++) {
        uint64_t before = turn;
        if (before % 2) continue;
        struct timespec now;
        if (true_clock(CLOCK_MONOTONIC, &now) != 0) return;
        int64_t real = nanos_of(&now), gained = scaled(real, since, shown, rate) - real, fast = rate != MILLION;
        if (turn != before) continue;
        *at = timespec_of(nanos_of(at) + gained);
        if (page) {
            page->gained_ns = gained;
            page->rate_asked += fast;
        }
        return;
    }
}

/* The true time at which the distorted clock shows `at`. */
static struct timespec truly(const struct timespec *at) {
    for (int tries = 0; turn != 0 && tries < 1000; tries++) {
        uint64_t before = turn;
        if (before % 2) continue;
        int64_t real = since + (int64_t)((__int128)(nanos_of(at) - shown) * MILLION / rate);
        if (turn == before) return timespec_of(real > 0 ? real : 0);
    }
    return *at;
}


int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = true_clock(clock, at);
    if (result != 0 || !page) return result;
    if (is_monotonic(clock) && (turn != 0 || page->rate_ppm != 0)) distort(at);
    int64_t offset = page->wall_offset_ns;
    if (offset != 0 && is_wall(clock)) {
        int64_t seconds = offset / SECOND, nanos = at->tv_nsec + offset % SECOND;
        if (nanos < 0) { nanos += SECOND; seconds -= 1; }
        if (nanos >= SECOND) { nanos -= SECOND; seconds += 1; }
        at->tv_sec += seconds;
        at->tv_nsec = nanos;
        page->clock_asked++;
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

/* ---- Waiting: what the kernel is asked to wait is by its own clock ---- */

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    struct timespec until;
    int waits = number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && !(b & FUTEX_CLOCK_REALTIME);
    if (waits && d && turn != 0) {
        until = truly((const struct timespec *)d);
        d = (long)&until;
    }
    return pass(number, a, b, c, d, e, f);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int millis) {
    static int (*real)(int, struct epoll_event *, int, int);
    if (!real) real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    if (millis > 0 && rate != MILLION) {
        /* Rounded up: too short a wait would be made again and again. */
        int64_t wait = (int64_t)millis * MILLION / rate + 1;
        millis = wait < INT_MAX ? (int)wait : INT_MAX;
    }
    return real(fd, events, most, millis);
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *at) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec until = clock == CLOCK_MONOTONIC && turn != 0 ? truly(at) : *at;
    return real(condition, mutex, clock, &until);
}

/* ---- Reads ---- */

/* Whether this read of one of the node's own files is to fail. */
static int fails(int fd) {
    if (!page || !page->read_error || !data_dir) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (strncmp(path, data_dir, strlen(data_dir)) != 0) return 0;
    int64_t every = page->read_every > 0 ? page->read_every : 1;
    if (page->reads_seen++ % every != 0) return 0;
    page->reads_failed++;
    errno = (int)page->read_error;
    return 1;
}

ssize_t read(int fd, void *to, size_t count) {
    return fails(fd) ? -1 : (ssize_t)pass(SYS_read, fd, (long)to, (long)count, 0, 0, 0);
}

ssize_t pread(int fd, void *to, size_t count, off_t at) {
    return fails(fd) ? -1 : (ssize_t)pass(SYS_pread64, fd, (long)to, (long)count, at, 0, 0);
}

ssize_t pread64(int fd, void *to, size_t count, off64_t at) {
    return fails(fd) ? -1 : (ssize_t)pass(SYS_pread64, fd, (long)to, (long)count, at, 0, 0);
}

/* ---- Syncs ---- */

/* Whether a sync is to fail; counts down those that are left. */
static int sync_fails(void) {
    int64_t left = page->syncs_to_fail;
    while (left > 0) {
        if (atomic_compare_exchange_weak(&page->syncs_to_fail, &left, left - 1)) return 1;
    }
    return left < 0;
}

/* Whether the sync is to be made; -1 with errno when it has failed. */
static int touch_sync(void) {
    if (!page) return 1;
    int64_t delay = page->sync_delay_us, error = page->sync_error, lies = page->sync_lies;
    if (error && !sync_fails()) error = 0;
    if (delay == 0 && error == 0 && lies == 0) return 1;
    page->syncs_touched++;
    if (delay > 0) {
        struct timespec wait = { delay / 1000000, delay % 1000000 * 1000 };
        nanosleep(&wait, NULL);
    }
    if (error) { errno = (int)error; return -1; }
    return lies ? 0 : 1;
}

int fsync(int fd) {
    int go = touch_sync();
    return go > 0 ? (int)pass(SYS_fsync, fd, 0, 0, 0, 0, 0) : go;
}

int fdatasync(int fd) {
    int go = touch_sync();
    return go > 0 ? (int)pass(SYS_fdatasync, fd, 0, 0, 0, 0, 0) : go;
}

int sync_file_range(int fd, off64_t offset, off64_t count, unsigned int flags) {
    int go = touch_sync();
    return go > 0 ? (int)pass(SYS_sync_file_range, fd, offset, count, (long)flags, 0, 0) : go;
}
