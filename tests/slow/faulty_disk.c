/* A disk that is slow or full, for one folder: preloaded into a program (LD_PRELOAD).

   FAULTY_FOLDER  files below it are on that disk
   FAULTY_MS      milliseconds that every write takes
   FAULTY_BYTES   bytes it has room for; without it there is no end */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef ssize_t (*writer)(int, const void *, size_t);

static writer real_write;
static const char *folder;
static long pause_ms;
static atomic_long room = -1;

__attribute__((constructor)) static void begin(void) {
  const char *bytes = getenv("FAULTY_BYTES");
  const char *ms = getenv("FAULTY_MS");
  real_write = (writer)dlsym(RTLD_NEXT, "write");
  folder = getenv("FAULTY_FOLDER");
  pause_ms = ms ? atol(ms) : 0;
  if (bytes) atomic_store(&room, atol(bytes));
}

static int is_on_it(int fd) {
  char link[64], path[PATH_MAX];
  if (!folder) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

/* Bytes of a request that there is room for; they are taken from it. */
static long granted(long wanted) {
  long left = atomic_load(&room);
  long given;
  do {
    if (left < 0) return wanted;
    given = wanted < left ? wanted : left;
  } while (!atomic_compare_exchange_weak(&room, &left, left - given));
  return given;
}

ssize_t write(int fd, const void *data, size_t count) {
  if (!is_on_it(fd)) return real_write(fd, data, count);
  if (pause_ms) {
    struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
  }
  long given = granted((long)count);
  if (!given && count) {
    errno = ENOSPC;
    return -1;
  }
  return real_write(fd, data, (size_t)given);
}
