// Makes a disk fail, for the processes that LD_PRELOAD loads this into.
//
// It looks at the calls on files in the folder that FAULTS_FOLDER names (a real path),
// and obeys the line in the file that FAULTS_ORDERS names, which may be replaced at any
// time: `CALL FAULT NUMBER`. CALL is openat, write, read, fsync, rename, unlink, or any
// of these that changes something; or pwrite or fdatasync, which SQLite makes. FAULT is
//
//   fail       each call from this one on, counted from 1, is refused with EIO
//   fail-once  this call alone is
//   full       after so many more bytes are written there is no space
//   short      a write takes at most so many bytes
//   stick      the call waits for as long as the order stands
//   kill       the process dies before this call
//   lie        fsync does nothing, and says that it did
//
// With FAULTS_CUT, a folder of the same file system, it also keeps what a power cut
// would leave, in place of syncing:
//
//   data/INODE    the bytes of a file as they were synced last
//   links/INODE   a link, so that no other file gets the number
//   folders/NAME  `INODE NAME` of the entries of a folder as they were synced last;
//                 the folder itself is `root`
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
  char call[16];
  char fault[16];
  long number;
  ino_t inode;  // Of the file with the orders.
} order;
static long seen;   // Calls since the order came.
static long taken;  // Bytes since then.

// Gives a path within the folder: "" of the folder, null of what is elsewhere.
static const char* within(const char* path) {
  const char* const folder = getenv("FAULTS_FOLDER");
  if (folder == NULL || strncmp(path, folder, strlen(folder)) != 0) return NULL;
  path += strlen(folder);
  if (*path == '\0') return path;
  return *path == '/' ? path + 1 : NULL;
}

// Gives that of a descriptor's file.
static const char* path_of(int fd, char path[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, PATH_MAX - 1);
  if (size < 0) return NULL;
  path[size] = '\0';
  return within(path);
}

static bool is_within(int fd) {
  char path[PATH_MAX];
  return path_of(fd, path) != NULL;
}

static void read_order(void) {
  const char* const orders = getenv("FAULTS_ORDERS");
  struct stat about;
  if (orders == NULL || stat(orders, &about) != 0) {
    memset(&order, 0, sizeof order);
    return;
  }
  if (about.st_ino == order.inode) return;
  memset(&order, 0, sizeof order);
  seen = taken = 0;
  FILE* const file = fopen(orders, "re");
  if (file == NULL) return;
  if (fscanf(file, "%15s %15s %ld", order.call, order.fault, &order.number) == 3) {
    order.inode = about.st_ino;
  }
  fclose(file);
}

static bool is_fault(const char* fault) { return strcmp(order.fault, fault) == 0; }

// Obeys the order for a call, whose `bytes` it may lessen. Returns the error to give, 0
// for none, -1 to wait.
static int obey_now(const char* call, size_t* bytes) {
  read_order();
  const bool is_sqlite =
      strcmp(call, "pwrite") == 0 || strcmp(call, "fdatasync") == 0;
  const bool is_any = strcmp(order.call, "any") == 0 && strcmp(call, "read") != 0 &&
                      !is_sqlite;
  if (!is_any && strcmp(order.call, call) != 0) return 0;
  if (is_fault("stick")) return -1;
  ++seen;
  if (is_fault("kill") && seen >= order.number) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  if (is_fault("fail") && seen >= order.number) return EIO;
  if (is_fault("fail-once") && seen == order.number) return EIO;
  if (bytes == NULL || *bytes == 0) return 0;
  size_t most = *bytes;
  if (is_fault("short")) most = (size_t)order.number;
  if (is_fault("full")) most = (size_t)(order.number - taken);
  if (most == 0) return ENOSPC;
  if (*bytes > most) *bytes = most;
  taken += (long)*bytes;
  return 0;
}

static bool is_refused(const char* call, size_t* bytes) {
  int error;
  do {
    pthread_mutex_lock(&mutex);
    error = obey_now(call, bytes);
    pthread_mutex_unlock(&mutex);
    if (error < 0) usleep(2000);
  } while (error < 0);
  errno = error;
  return error != 0;
}

// Opens a file of FAULTS_CUT to write; it becomes `name` by `place`.
static FILE* begin(const char* cut, char made[PATH_MAX]) {
  snprintf(made, PATH_MAX, "%s/new", cut);
  FILE* const file = fopen(made, "we");
  if (file == NULL) abort();
  return file;
}

static void place(FILE* file, const char* made, const char* cut, const char* kind,
                  const char* name) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s/%s", cut, kind, name);
  if (fclose(file) != 0 || rename(made, path) != 0) abort();
}

static void link_inode(const char* cut, int folder, const char* name, ino_t inode) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/links/%lu", cut, (unsigned long)inode);
  if (linkat(folder, name, AT_FDCWD, path, 0) != 0 && errno != EEXIST) abort();
}

static void sync_file(const char* cut, int fd, const char* path, ino_t inode) {
  char made[PATH_MAX], name[32], bytes[1 << 16];
  link_inode(cut, AT_FDCWD, path, inode);
  FILE* const file = begin(cut, made);
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  const int source = open(name, O_RDONLY | O_CLOEXEC);
  if (source < 0) abort();
  ssize_t size;
  while ((size = syscall(SYS_read, source, bytes, sizeof bytes)) > 0) {
    fwrite(bytes, 1, (size_t)size, file);
  }
  close(source);
  snprintf(name, sizeof name, "%lu", (unsigned long)inode);
  place(file, made, cut, "data", name);
}

static void sync_folder(const char* cut, int fd, const char* name) {
  char made[PATH_MAX];
  FILE* const file = begin(cut, made);
  const int copy = (int)syscall(SYS_openat, fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const stream = fdopendir(copy);
  if (stream == NULL) abort();
  const struct dirent* entry;
  struct stat about;
  while ((entry = readdir(stream)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (fstatat(fd, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0) abort();
    fprintf(file, "%lu %s\n", (unsigned long)about.st_ino, entry->d_name);
    if (!S_ISDIR(about.st_mode)) link_inode(cut, fd, entry->d_name, about.st_ino);
  }
  closedir(stream);
  place(file, made, cut, "folders", name);
}

static int sync_cut(const char* cut, int fd) {
  char path[PATH_MAX];
  const char* const name = path_of(fd, path);
  struct stat about;
  if (name == NULL || fstat(fd, &about) != 0) abort();
  pthread_mutex_lock(&mutex);
  if (S_ISDIR(about.st_mode)) {
    sync_folder(cut, fd, *name == '\0' ? "root" : name);
  } else {
    sync_file(cut, fd, path, about.st_ino);
  }
  pthread_mutex_unlock(&mutex);
  return 0;
}

int fsync(int fd) {
  if (!is_within(fd)) return (int)syscall(SYS_fsync, fd);
  if (is_refused("fsync", NULL)) return -1;
  if (is_fault("lie")) return 0;
  const char* const cut = getenv("FAULTS_CUT");
  return cut == NULL ? (int)syscall(SYS_fsync, fd) : sync_cut(cut, fd);
}

int fdatasync(int fd) {
  if (!is_within(fd)) return (int)syscall(SYS_fdatasync, fd);
  if (is_refused("fdatasync", NULL)) return -1;
  if (is_fault("lie")) return 0;
  const char* const cut = getenv("FAULTS_CUT");
  return cut == NULL ? (int)syscall(SYS_fdatasync, fd) : sync_cut(cut, fd);
}

ssize_t pwrite64(int fd, const void* bytes, size_t count, off64_t place) {
  if (is_within(fd) && is_refused("pwrite", &count)) return -1;
  return syscall(SYS_pwrite64, fd, bytes, count, place);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  if (is_within(fd) && is_refused("write", &count)) return -1;
  return syscall(SYS_write, fd, bytes, count);
}

ssize_t read(int fd, void* bytes, size_t count) {
  if (is_within(fd) && is_refused("read", NULL)) return -1;
  return syscall(SYS_read, fd, bytes, count);
}

int openat(int folder, const char* name, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
    if (is_within(folder) && is_refused("openat", NULL)) return -1;
  }
  return (int)syscall(SYS_openat, folder, name, flags, mode);
}

int renameat(int from, const char* name, int to, const char* new_name) {
  if (is_within(from) && is_refused("rename", NULL)) return -1;
  return (int)syscall(SYS_renameat, from, name, to, new_name);
}

int rename(const char* name, const char* new_name) {
  if (within(new_name) != NULL && is_refused("rename", NULL)) return -1;
  return (int)syscall(SYS_renameat, AT_FDCWD, name, AT_FDCWD, new_name);
}

int unlinkat(int folder, const char* name, int flags) {
  if (is_within(folder) && is_refused("unlink", NULL)) return -1;
  return (int)syscall(SYS_unlinkat, folder, name, flags);
}
