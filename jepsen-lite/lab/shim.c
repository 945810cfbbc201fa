/* Loaded into a server before its other libraries (LD_PRELOAD): moves its wall clock, and breaks its syncs, as one page
 * of shared memory says. The clock of the machine is never touched. Counters in the page tell that it was asked.
 *
 * Compiled by the harness; see shim.rs for the page. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
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
};

static struct page *page;

__attribute__((constructor)) static void open_page(void) {
    const char *path = getenv("LCJL_SHIM");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) page = mapped;
}

static int is_wall(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

static int (*real_clock_gettime)(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *at) {
    if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime ? real_clock_gettime(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
    int64_t offset = page ? page->wall_offset_ns : 0;
    if (result == 0 && offset != 0 && is_wall(clock)) {
        int64_t seconds = offset / 1000000000, nanos = at->tv_nsec + offset % 1000000000;
        if (nanos < 0) { nanos += 1000000000; seconds -= 1; }
        if (nanos >= 1000000000) { nanos -= 1000000000; seconds += 1; }
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

/* Whether the sync is to be made; -1 with errno when it has failed. */
static int touch_sync(void) {
    if (!page) return 1;
    int64_t delay = page->sync_delay_us, error = page->sync_error, lies = page->sync_lies;
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
    return go > 0 ? (int)syscall(SYS_fsync, fd) : go;
}

int fdatasync(int fd) {
    int go = touch_sync();
    return go > 0 ? (int)syscall(SYS_fdatasync, fd) : go;
}

int sync_file_range(int fd, off64_t offset, off64_t count, unsigned int flags) {
    int go = touch_sync();
    return go > 0 ? (int)syscall(SYS_sync_file_range, fd, offset, count, flags) : go;
}
