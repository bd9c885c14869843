/* out_file.c: a file that appears under its name only when it is complete.
 * In:  pieces, in any order.
 * Out: the file. If anything fails or the process is killed, the old file of that name is
 * unchanged, and at most `<path>.part` exists beside it.
 *
 * The temporary name is fixed: a killed run leaves one file, and the next run reuses it. A lock
 * prevents two runs from writing the same file. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct out_file {
    int fd;
    bool is_ours; // we hold the lock, so we may change and remove the temporary file
    bool is_committed;
    char *path, *part; // the final name, and the name until then
    char names[];
};

/* One write() may be at most this long on some systems. */
#define MAX_WRITE_BYTES ((size_t)1 << 30)

static quip_status fail_errno(const char *name, const char *what, quip_error *error)
{
    return qp_fail(error, QUIP_E_IO, "%s: cannot be %s: %s", name, what, strerror(errno));
}

/* Between open and lock, another run may have committed or removed the file. Then our lock is on a
 * file that no longer has this name. */
static bool has_the_name(const struct out_file *f)
{
    struct stat by_fd, by_name;
    return !fstat(f->fd, &by_fd) && !stat(f->part, &by_name) && by_fd.st_ino == by_name.st_ino &&
           by_fd.st_dev == by_name.st_dev;
}

static quip_status open_part(struct out_file *f, quip_error *error)
{
    for (int tries = 0; !f->is_ours; tries++) {
        f->fd = open(f->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (f->fd < 0)
            return fail_errno(f->part, "created", error);
        if (flock(f->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
            return qp_fail(error, QUIP_E_IO, "%s: is being written by another process", f->part);
        f->is_ours = has_the_name(f) || tries == 100; // this disk has no locks: continue without
        if (!f->is_ours) {
            close(f->fd);
            f->fd = -1;
        }
    }
    return ftruncate(f->fd, 0) ? fail_errno(f->part, "emptied", error) : QUIP_OK;
}

quip_status qp_out_file_open(struct out_file **out, const char *path, quip_error *error)
{
    *out = NULL;
    struct stat st;
    if (!stat(path, &st) && !S_ISREG(st.st_mode))
        return qp_fail(error, QUIP_E_IO, "%s: exists and is not a regular file", path);
    size_t n = strlen(path);
    size_t size = sizeof(struct out_file) + 2 * n + sizeof ".part" + 1;
    struct out_file *f = calloc(1, size);
    if (!f)
        return qp_fail_memory(error, path, size);
    f->fd = -1;
    f->path = f->names;
    f->part = f->names + n + 1;
    memcpy(f->path, path, n);
    memcpy(f->part, path, n);
    memcpy(f->part + n, ".part", sizeof ".part");
    quip_status status = open_part(f, error);
    if (status) {
        qp_out_file_close(f);
        return status;
    }
    *out = f;
    return QUIP_OK;
}

quip_status qp_out_file_resize(struct out_file *f, uint64_t size, quip_error *error)
{
    struct statvfs disk;
    off_t end = (off_t)size;
    if (end < 0 || (uint64_t)end != size)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: cannot have %" PRIu64 " bytes on this system", f->path, size);
    // check now: otherwise the disk may fill up after an hour of work
    if (!fstatvfs(f->fd, &disk) && disk.f_frsize &&
        size / disk.f_frsize + 1 > (uint64_t)disk.f_bavail)
        return qp_fail(error, QUIP_E_IO,
                       "%s: needs %" PRIu64 " bytes, the disk has %" PRIu64 " free", f->path, size,
                       (uint64_t)disk.f_bavail * disk.f_frsize);
    return ftruncate(f->fd, end) ? fail_errno(f->part, "resized", error) : QUIP_OK;
}

quip_status qp_out_file_write(struct out_file *f, uint64_t offset, const void *data, size_t n,
                              quip_error *error)
{
    assert(f->is_ours && !f->is_committed);
    assert(data || n == 0);
    const char *p = data;
    while (n) {
        ssize_t written =
            pwrite(f->fd, p, n < MAX_WRITE_BYTES ? n : MAX_WRITE_BYTES, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return fail_errno(f->part, "written", error);
        p += written;
        offset += (uint64_t)written;
        n -= (size_t)written;
    }
    return QUIP_OK;
}

quip_status qp_out_file_commit(struct out_file *f, quip_error *error)
{
    assert(f->is_ours && !f->is_committed);
    if (fsync(f->fd) && errno != EINVAL && errno != EROFS) // both: the disk cannot flush
        return fail_errno(f->part, "flushed to the disk", error);
    if (rename(f->part, f->path))
        return fail_errno(f->path, "replaced", error);
    f->is_committed = true;
    return QUIP_OK;
}

void qp_out_file_close(struct out_file *f)
{
    if (!f)
        return;
    if (f->is_ours && !f->is_committed)
        unlink(f->part); // before close, while we hold the lock
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

#else // nothing writes model files on such systems yet

quip_status qp_out_file_open(struct out_file **out, const char *path, quip_error *error)
{
    *out = NULL;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: files cannot be written on this system", path);
}

quip_status qp_out_file_resize(struct out_file *f, uint64_t size, quip_error *error)
{
    (void)f, (void)size;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "files cannot be written on this system");
}

quip_status qp_out_file_write(struct out_file *f, uint64_t offset, const void *data, size_t n,
                              quip_error *error)
{
    (void)f, (void)offset, (void)data, (void)n;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "files cannot be written on this system");
}

quip_status qp_out_file_commit(struct out_file *f, quip_error *error)
{
    (void)f;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "files cannot be written on this system");
}

void qp_out_file_close(struct out_file *f)
{
    (void)f;
}

#endif
