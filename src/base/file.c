/* file.c - the doors to the file system: mapped and read whole, written beside the target and renamed. */
#include "base/base.h"
#include "base/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- system calls: retried when interrupted, failing when a test asks -------------------------------- */

static bool faulty(void)
{
    if (!fault_io_now()) return false;
    errno = EIO;
    return true;
}

static int io_open(const char *path, int flags)
{
    int fd;
    if (faulty()) return -1;
    do fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static ssize_t io_read(int fd, void *data, size_t bytes)
{
    ssize_t n;
    if (faulty()) return -1;
    do n = read(fd, data, bytes < SSIZE_MAX ? bytes : SSIZE_MAX);
    while (n < 0 && errno == EINTR);
    return n;
}

static bool io_write(int fd, const char *data, size_t bytes)
{
    if (faulty()) return false;
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes < SSIZE_MAX ? bytes : SSIZE_MAX);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool io_fsync(int fd)
{
    int r;
    if (faulty()) return false;
    do r = fsync(fd);
    while (r < 0 && errno == EINTR);
    return r == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS; /* terminals and pipes know no fsync */
}

static bool io_rename(const char *from, const char *to) { return !faulty() && rename(from, to) == 0; }

static sca_status io_fail(const char *path, const char *verb, int error)
{
    char buffer[128];
    return status_fail(error == ENOMEM ? SCA_ERR_MEMORY : SCA_ERR_IO, "%s: cannot %s: %s", path, verb,
                       strerror_r(error, buffer, sizeof buffer));
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)                    ? "a folder"
           : S_ISFIFO(mode)                 ? "a pipe"
           : S_ISSOCK(mode)                 ? "a socket"
           : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                            : "no regular file";
}

/* Without O_NONBLOCK the open itself would wait for the other end of a pipe. */
static sca_status open_regular(const char *path, int *fd, size_t *bytes)
{
    struct stat info;
    *fd = io_open(path, O_RDONLY | O_NONBLOCK);
    if (*fd < 0) return io_fail(path, "open", errno);
    sca_status status = SCA_OK;
    if (fstat(*fd, &info) < 0)
        status = io_fail(path, "look at", errno);
    else if (!S_ISREG(info.st_mode))
        status = status_fail(SCA_ERR_IO, "%s: is %s, expected a regular file", path, kind_of(info.st_mode));
    else
        *bytes = (size_t)info.st_size;
    if (status != SCA_OK) close(*fd);
    return status;
}

sca_status file_map(const char *path, file_view *out)
{
    static const uint8_t nothing[1];
    *out = (file_view){ 0 };
    int fd;
    size_t bytes;
    TRY(open_regular(path, &fd, &bytes));
    void *data = MAP_FAILED;
    char *copy = text_copy(path, strlen(path));
    if (bytes > 0 && !faulty()) data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    int error = errno;
    close(fd);
    if (copy && (bytes == 0 || data != MAP_FAILED)) {
        *out = (file_view){ .data = bytes ? data : nothing, .bytes = bytes, .path = copy };
        return SCA_OK;
    }
    if (data != MAP_FAILED) munmap(data, bytes);
    if (!copy) return mem_fail(strlen(path) + 1, "a file name");
    mem_free(copy);
    return io_fail(path, "map", error);
}

void file_unmap(file_view *v)
{
    if (v->bytes > 0) munmap((void *)v->data, v->bytes);
    mem_free(v->path);
    *v = (file_view){ 0 };
}

void file_forget(const file_view *v, size_t from, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), first = (from + page - 1) / page * page;
    size_t end = (from + bytes) / page * page; /* whole pages only */
    if (first < end && end <= v->bytes) madvise((void *)(v->data + first), end - first, MADV_DONTNEED);
}

sca_status file_read(const char *path, size_t limit, char **data, size_t *bytes)
{
    int fd;
    size_t size, got = 0;
    char *text = NULL;
    *data = NULL;
    sca_status status = SCA_OK;
    TRY(open_regular(path, &fd, &size));
    if (size > limit) {
        status = status_fail(SCA_ERR_FORMAT, "%s: has %zu bytes, expected at most %zu", path, size, limit);
        goto done;
    }
    text = mem_alloc(size + 1);
    if (!text) {
        status = mem_fail(size + 1, path);
        goto done;
    }
    while (got < size) { /* a file that shrinks meanwhile ends early */
        ssize_t n = io_read(fd, text + got, size - got);
        if (n < 0) status = io_fail(path, "read", errno);
        if (n <= 0) break;
        got += (size_t)n;
    }
done:
    close(fd);
    if (status != SCA_OK) {
        mem_free(text);
        return status;
    }
    text[got] = 0;
    *data = text;
    *bytes = got;
    return SCA_OK;
}

bool file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool dir_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool make_one(const char *path, int *error)
{
    bool made = !faulty() && mkdir(path, 0777) == 0;
    *error = errno;
    return made || dir_exists(path); /* another process may have made it meanwhile */
}

sca_status dir_make(const char *path)
{
    int error = ENOENT;
    char *part = text_copy(path, strlen(path));
    if (!part) return mem_fail(strlen(path) + 1, "a folder name");
    bool made = *path != 0;
    for (char *p = part; made && *p;) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char separator = *p;
        *p = 0;
        made = make_one(part, &error);
        *p = separator;
    }
    mem_free(part);
    return made ? SCA_OK : io_fail(path, "make the folder", error);
}

/* ---- writing ----------------------------------------------------------------------------------------- */

enum { BUFFER_BYTES = 1 << 16, LINKS_MOST = 40, NAME_KEPT = 200 };

struct file_out {
    int fd;
    bool in_place;
    bool broken;  /* a write failed: commit must not put the rest in place of the old file */
    char *path;   /* as given, for messages                                                */
    char *target; /* what is renamed over: path with symbolic links followed               */
    char *temp;   /* NULL when written in place                                            */
    uint64_t at;  /* position of the next byte, buffered ones counted                      */
    size_t buffered;
    char buffer[BUFFER_BYTES];
};

/* "/dev/stdout", "/dev/fd/3": the descriptor itself, since opening the name again would start at its beginning. */
static bool names_descriptor(const char *path, int *fd)
{
    int64_t n = -1;
    if (strcmp(path, "/dev/stdout") == 0) n = STDOUT_FILENO;
    if (strcmp(path, "/dev/stderr") == 0) n = STDERR_FILENO;
    if (text_starts(path, "/dev/fd/")) (void)text_to_int(path + 8, 0, INT_MAX, &n);
    if (text_starts(path, "/proc/self/fd/")) (void)text_to_int(path + 14, 0, INT_MAX, &n);
    *fd = (int)n;
    return n >= 0;
}

/* Folder part of path, "." if it has none; NULL when out of memory. */
static char *folder_of(const char *path)
{
    size_t n = (size_t)(path_name(path) - path);
    while (n > 1 && path[n - 1] == '/') n--;
    return n ? text_copy(path, n) : text_copy(".", 1);
}

/* Replaces *path, a symbolic link, by what it points to. */
static sca_status follow_link(char **path)
{
    char where[PATH_MAX];
    ssize_t n = readlink(*path, where, sizeof where - 1);
    if (n < 0) return io_fail(*path, "follow the link", errno);
    where[n] = 0;
    char *dir = where[0] == '/' ? NULL : folder_of(*path);
    char *next = where[0] == '/' ? text_copy(where, (size_t)n) : dir ? path_join(dir, where) : NULL;
    mem_free(dir);
    if (!next) return mem_fail((size_t)n, "a file name");
    mem_free(*path);
    *path = next;
    return SCA_OK;
}

/* Sets f->target and whether it is written in place, and *mode to the permissions of a file that is there. */
static sca_status find_target(file_out *f, mode_t *mode)
{
    struct stat info;
    for (int links = 0;; links++) {
        /* The links of /proc name no path. */
        bool there = lstat(f->target, &info) == 0;
        if (!there || !S_ISLNK(info.st_mode) || text_starts(f->target, "/proc/")) break;
        if (links == LINKS_MOST) return io_fail(f->path, "open", ELOOP);
        TRY(follow_link(&f->target));
    }
    *mode = 0;
    if (stat(f->target, &info) < 0) return errno == ENOENT ? SCA_OK : io_fail(f->path, "open for writing", errno);
    if (S_ISDIR(info.st_mode)) return status_fail(SCA_ERR_IO, "%s: is a folder, expected a file to write", f->path);
    f->in_place = !S_ISREG(info.st_mode) || text_starts(f->target, "/proc/");
    *mode = info.st_mode & 0777;
    return SCA_OK;
}

static void random_word(char word[7])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789__";
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != (ssize_t)sizeof bits) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        bits = ((uint64_t)now.tv_nsec << 20 ^ (uint64_t)getpid()) * 0x9e3779b97f4a7c15u >> 8;
    }
    for (int i = 0; i < 6; i++, bits >>= 6) word[i] = letters[bits & 63];
    word[6] = 0;
}

/* Creates ".NAME.XXXXXX.tmp" beside the target. */
static sca_status open_temp(file_out *f, mode_t mode)
{
    char *dir = folder_of(f->target);
    if (!dir) return mem_fail(strlen(f->target), "a file name");
    sca_status status = SCA_OK;
    for (int tries = 0; f->fd < 0 && status == SCA_OK; tries++) {
        char word[7], name[NAME_KEPT + 32];
        random_word(word);
        snprintf(name, sizeof name, ".%.*s.%s.tmp", NAME_KEPT, path_name(f->target), word);
        mem_free(f->temp);
        f->temp = path_join(dir, name);
        if (!f->temp) {
            status = mem_fail(strlen(dir) + sizeof name, "a file name");
            break;
        }
        f->fd = io_open(f->temp, O_WRONLY | O_CREAT | O_EXCL);
        if (f->fd < 0 && (errno != EEXIST || tries == 100)) status = io_fail(f->path, "create", errno);
    }
    mem_free(dir);
    if (f->fd >= 0 && mode) (void)!fchmod(f->fd, mode); /* keeps the old file's permissions where that is allowed */
    if (status != SCA_OK) {
        mem_free(f->temp); /* nothing of that name was created by us */
        f->temp = NULL;
    }
    return status;
}

static sca_status open_target(file_out *f)
{
    int descriptor;
    mode_t mode;
    if (names_descriptor(f->path, &descriptor)) {
        f->in_place = true;
        f->fd = faulty() ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
        return f->fd < 0 ? io_fail(f->path, "write", errno) : SCA_OK;
    }
    if (path_name(f->path)[0] == 0) return status_fail(SCA_ERR_IO, "'%s': names no file to write", f->path);
    TRY(find_target(f, &mode));
    if (!f->in_place) return open_temp(f, mode);
    f->fd = io_open(f->target, O_WRONLY);
    return f->fd < 0 ? io_fail(f->path, "open for writing", errno) : SCA_OK;
}

sca_status file_out_open(const char *path, file_out **out)
{
    *out = NULL;
    file_out *f = mem_zero(1, sizeof *f);
    if (!f) return mem_fail(sizeof *f, "writing a file");
    f->fd = -1;
    f->path = text_copy(path, strlen(path));
    f->target = text_copy(path, strlen(path));
    sca_status status = f->path && f->target ? open_target(f) : mem_fail(strlen(path) + 1, "a file name");
    if (status != SCA_OK) {
        file_out_abort(f);
        return status;
    }
    *out = f;
    return SCA_OK;
}

static sca_status write_now(file_out *f, const void *data, size_t bytes)
{
    if (f->broken) return status_fail(SCA_ERR_IO, "%s: cannot write: an earlier write failed", f->path);
    if (bytes == 0 || io_write(f->fd, data, bytes)) return SCA_OK;
    f->broken = true;
    return io_fail(f->path, "write", errno);
}

static sca_status flush(file_out *f)
{
    size_t bytes = f->buffered;
    f->buffered = 0;
    return write_now(f, f->buffer, bytes);
}

sca_status file_out_put(file_out *f, const void *data, size_t bytes)
{
    if (bytes > BUFFER_BYTES - f->buffered) TRY(flush(f));
    if (bytes >= BUFFER_BYTES) {
        TRY(write_now(f, data, bytes));
    } else if (bytes > 0) {
        memcpy(f->buffer + f->buffered, data, bytes);
        f->buffered += bytes;
    }
    f->at += bytes;
    return SCA_OK;
}

sca_status file_out_seek(file_out *f, int64_t offset)
{
    if (offset >= 0 && (uint64_t)offset == f->at) return SCA_OK;
    if (offset < 0) return status_fail(SCA_ERR_ARGUMENT, "%s: cannot go to byte %lld", f->path, (long long)offset);
    if (f->in_place)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "%s: can only be written from beginning to end; name a regular file", f->path);
    TRY(flush(f));
    if (faulty() || lseek(f->fd, (off_t)offset, SEEK_SET) < 0) {
        f->broken = true;
        return io_fail(f->path, "seek", errno);
    }
    f->at = (uint64_t)offset;
    return SCA_OK;
}

/* A rename lasts once the folder is written too; file systems that cannot do that are none of our business. */
static sca_status sync_folder_of(const char *path)
{
    char *dir = folder_of(path);
    if (!dir) return mem_fail(strlen(path), "a file name");
    int fd = io_open(dir, O_RDONLY | O_DIRECTORY);
    sca_status status = SCA_OK;
    if (fd < 0) {
        if (errno != EACCES && errno != EPERM) status = io_fail(dir, "open", errno);
    } else {
        if (!io_fsync(fd)) status = io_fail(dir, "write the folder", errno);
        close(fd);
    }
    mem_free(dir);
    return status;
}

static sca_status finish(file_out *f)
{
    TRY(flush(f));
    if (!io_fsync(f->fd)) return io_fail(f->path, "write", errno);
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) < 0 && errno != EINTR) return io_fail(f->path, "write", errno);
    if (!f->temp) return SCA_OK;
    if (!io_rename(f->temp, f->target)) return io_fail(f->path, "rename into place", errno);
    mem_free(f->temp);
    f->temp = NULL;
    return sync_folder_of(f->target);
}

sca_status file_out_commit(file_out *f)
{
    sca_status status = finish(f);
    file_out_abort(f);
    return status;
}

void file_out_abort(file_out *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    if (f->temp) unlink(f->temp);
    mem_free(f->temp);
    mem_free(f->target);
    mem_free(f->path);
    mem_free(f);
}

sca_status file_write(const char *path, const void *data, size_t bytes)
{
    file_out *f;
    TRY(file_out_open(path, &f));
    sca_status status = file_out_put(f, data, bytes);
    if (status == SCA_OK) return file_out_commit(f);
    file_out_abort(f);
    return status;
}

/* ---- growing files ----------------------------------------------------------------------------------- */

struct file_log {
    int fd;
    char *path; /* for messages */
};

sca_status file_log_open(const char *path, size_t keep, file_log **out)
{
    struct stat info;
    *out = NULL;
    file_log *f = mem_zero(1, sizeof *f);
    if (!f) return mem_fail(sizeof *f, "writing a file");
    f->fd = -1;
    f->path = text_copy(path, strlen(path));
    sca_status status = f->path ? SCA_OK : mem_fail(strlen(path) + 1, "a file name");
    if (status == SCA_OK && (f->fd = io_open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK)) < 0)
        status = io_fail(path, "open for writing", errno);
    if (status == SCA_OK && fstat(f->fd, &info) < 0) status = io_fail(path, "look at", errno);
    if (status == SCA_OK && !S_ISREG(info.st_mode))
        status = status_fail(SCA_ERR_IO, "%s: is %s, expected a regular file", path, kind_of(info.st_mode));
    /* Where a file system knows no locks, who starts two writers is not warned. */
    if (status == SCA_OK && flock(f->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        status = status_fail(SCA_ERR_STATE, "%s: another process is writing it; wait for that, or end it", path);
    if (status == SCA_OK && (size_t)info.st_size > keep && (faulty() || ftruncate(f->fd, (off_t)keep) < 0))
        status = io_fail(path, "shorten", errno);
    if (status == SCA_OK)
        *out = f;
    else
        file_log_close(f);
    return status;
}

sca_status file_log_put(file_log *f, const void *data, size_t bytes)
{
    return io_write(f->fd, data, bytes) ? SCA_OK : io_fail(f->path, "write", errno);
}

sca_status file_log_sync(file_log *f) { return io_fsync(f->fd) ? SCA_OK : io_fail(f->path, "write", errno); }

void file_log_close(file_log *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    mem_free(f->path);
    mem_free(f);
}

sca_status file_remove(const char *path)
{
    if (faulty() || (unlink(path) < 0 && errno != ENOENT)) return io_fail(path, "remove", errno);
    return SCA_OK;
}

sca_status dir_each(const char *path, sca_status (*fn)(void *user, const char *name), void *user)
{
    DIR *dir = faulty() ? NULL : opendir(path);
    if (!dir) return io_fail(path, "open the folder", errno);
    sca_status status = SCA_OK;
    struct dirent *entry;
    while (status == SCA_OK && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) status = fn(user, entry->d_name);
    closedir(dir);
    return status;
}

/* ---- folders and links ------------------------------------------------------------------------------- */

sca_status dir_rename(const char *from, const char *to)
{
    if (!io_rename(from, to)) return io_fail(from, "rename into place", errno);
    return sync_folder_of(to);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info, (void)where;
    if (faulty()) return -1;
    return kind == FTW_DP ? rmdir(path) : unlink(path);
}

sca_status dir_remove(const char *path)
{
    struct stat info;
    if (lstat(path, &info) < 0 && errno == ENOENT) return SCA_OK;
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 ? SCA_OK : io_fail(path, "remove", errno);
}

static bool make_link(const char *temp, const char *target)
{
    if (faulty()) return false;
    (void)unlink(temp); /* of a run that was killed here */
    return symlink(target, temp) == 0;
}

sca_status link_write(const char *path, const char *target)
{
    char *dir = folder_of(path), name[NAME_KEPT + 32];
    snprintf(name, sizeof name, ".%.*s.link.tmp", NAME_KEPT, path_name(path));
    char *temp = dir ? path_join(dir, name) : NULL;
    mem_free(dir);
    if (!temp) return mem_fail(strlen(path), "a file name");
    sca_status status = SCA_OK;
    if (!make_link(temp, target)) {
        status = io_fail(path, "make the link", errno);
    } else if (!io_rename(temp, path)) {
        status = io_fail(path, "make the link", errno);
        (void)unlink(temp);
    }
    mem_free(temp);
    return status == SCA_OK ? sync_folder_of(path) : status;
}
