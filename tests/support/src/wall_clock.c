/* Preloaded into one process: shifts the clock that can be set, CLOCK_REALTIME, by as many nanoseconds as the mapped
   file says, and leaves every other clock as it is. Without the file the process does not start: a shift that silently
   does nothing would make tests pass. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t second = 1000000000;
static const volatile int64_t *offset;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("WALL_CLOCK_OFFSET");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  if (map == MAP_FAILED || !real_clock_gettime) {
    fprintf(stderr, "wall clock: cannot map the offset\n");
    _exit(127);
  }
  close(file);
  offset = map;
}

static void shifted(struct timespec *time) {
  real_clock_gettime(CLOCK_REALTIME, time);
  int64_t nanos = (int64_t)time->tv_sec * second + time->tv_nsec + (offset ? *offset : 0);
  time->tv_sec = nanos / second;
  time->tv_nsec = nanos % second;
}

int clock_gettime(clockid_t clock, struct timespec *result) {
  /* Called by another constructor, before ours. */
  if (!real_clock_gettime) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  }
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
    return real_clock_gettime(clock, result);
  }
  shifted(result);
  return 0;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
  (void)zone;
  struct timespec now;
  shifted(&now);
  result->tv_sec = now.tv_sec;
  result->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *result) {
  struct timespec now;
  shifted(&now);
  if (result) {
    *result = now.tv_sec;
  }
  return now.tv_sec;
}
