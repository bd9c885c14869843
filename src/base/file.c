/* file.c: a file that can be read at any offset.
 * In:  a path, a part of an open file, a caller's read_at, or memory.
 * Out: for a path or a part, a read-only shared mapping: its pages cost nothing until they are
 *      read, and all processes share them. Or a copy in memory. For read_at, the size, and copies
 *      on demand.
 *
 * If a mapped file changes while it is open, the values read from it are undefined, and pages
 * behind its new end raise SIGBUS. qp_file_check notices a change between two calls. A private
 * mapping would not help: pages that were not read yet still come from the changed file. */
#include "base.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define MAX_PAGE 65536 // a multiple of every system's page size

static quip_status copy_name(struct file *f, const char *name, quip_error *error)
{
    size_t n = strlen(name) + 1;
    char *copy = malloc(n);
    if (!copy)
        return qp_fail_memory(error, "a file name", n);
    memcpy(copy, name, n);
    f->name = copy;
    return QUIP_OK;
}

#if defined(__unix__) || defined(__APPLE__)

#if defined(__APPLE__)
static struct timespec modified(const struct stat *st)
{
    return st->st_mtimespec;
}
#else
static struct timespec modified(const struct stat *st)
{
    return st->st_mtim;
}
#endif

static struct file_stamp stamp_of(const struct stat *st)
{
    const struct timespec time = modified(st);
    return (struct file_stamp){ .device = (uint64_t)st->st_dev,
                                .inode = (uint64_t)st->st_ino,
                                .size = (uint64_t)st->st_size,
                                .seconds = (int64_t)time.tv_sec,
                                .nanoseconds = (int64_t)time.tv_nsec };
}

struct file_stamp qp_file_stamp(int fd)
{
    struct stat st;
    return fstat(fd, &st) ? (struct file_stamp){ 0 } : stamp_of(&st);
}

bool qp_file_stamp_differs(const struct file_stamp *before, const struct file_stamp *now)
{
    return now->size != before->size || now->seconds != before->seconds ||
           now->nanoseconds != before->nanoseconds;
}

static quip_status fail_changed(const struct file *f, quip_error *error)
{
    return qp_fail(error, QUIP_E_IO,
                   "%s: was truncated or overwritten by another program; open it again", f->name);
}

/* The size of a file that can be a model, and its stamp. */
static quip_status measure_file(struct file *f, int fd, quip_error *error)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return qp_fail(error, QUIP_E_IO, "%s: %s", f->name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return qp_fail(error, QUIP_E_IO, "%s: is a folder, not a file", f->name);
    if (!S_ISREG(st.st_mode))
        return qp_fail(error, QUIP_E_IO, "%s: is not a regular file", f->name);
    if (st.st_size == 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: is empty", f->name);
    if ((uint64_t)st.st_size > PTRDIFF_MAX)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has %" PRIu64 " bytes, more than this machine's address space", f->name,
                       (uint64_t)st.st_size);
    f->size = (uint64_t)st.st_size;
    f->stamp = stamp_of(&st);
    return QUIP_OK;
}

/* Restrict a measured file to `size` bytes at `offset`; 0: up to its end. */
static quip_status select_part(struct file *f, uint64_t offset, uint64_t size, quip_error *error)
{
    if (offset >= f->size || size > f->size - offset)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has %" PRIu64 " bytes, expected %" PRIu64 " at offset %" PRIu64
                       "; is the file truncated?",
                       f->name, f->size, size ? size : 1, offset);
    f->begin = offset;
    f->size = size ? size : f->size - offset;
    return QUIP_OK;
}

static quip_status map_file(struct file *f, int fd, quip_error *error)
{
    const size_t before = (size_t)(f->begin % MAX_PAGE); // a mapping begins at a page
    uint8_t *data =
        mmap(NULL, before + (size_t)f->size, PROT_READ, MAP_SHARED, fd, (off_t)(f->begin - before));
    if (data == MAP_FAILED)
        return qp_fail(error, errno == ENOMEM ? QUIP_E_MEMORY : QUIP_E_IO,
                       "%s: cannot be mapped: %s", f->name, strerror(errno));
    f->data = data + before;
    f->is_mapped = true;
    return QUIP_OK;
}

static quip_status copy_file(struct file *f, int fd, quip_error *error)
{
    const size_t max_read = (size_t)1 << 30; // some systems refuse 2 GB at once
    uint8_t *data = qp_alloc_pages((size_t)f->size);
    if (!data)
        return qp_fail_memory(error, f->name, (size_t)f->size);
    f->data = data;
    for (size_t at = 0; at < f->size;) {
        const size_t left = (size_t)f->size - at;
        const ssize_t n =
            pread(fd, data + at, left < max_read ? left : max_read, (off_t)(f->begin + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return qp_fail(error, QUIP_E_IO, "%s: cannot be read: %s", f->name, strerror(errno));
        if (n == 0)
            return fail_changed(f, error);
        at += (size_t)n;
    }
    const struct file_stamp now = qp_file_stamp(fd);
    return qp_file_stamp_differs(&f->stamp, &now) ? fail_changed(f, error) : QUIP_OK;
}

static quip_status load_part(struct file *f, int fd, uint64_t offset, uint64_t size, bool is_copied,
                             quip_error *error)
{
    quip_status status = measure_file(f, fd, error);
    if (!status)
        status = select_part(f, offset, size, error);
    if (!status)
        status = is_copied ? copy_file(f, fd, error) : map_file(f, fd, error);
    return status;
}

static quip_status load_file(struct file *f, bool is_copied, quip_error *error)
{
    // O_NONBLOCK: opening a FIFO must not wait for its writer
    int fd = open(f->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return qp_fail_open(error, f->name);
    const quip_status status = load_part(f, fd, 0, 0, is_copied, error);
    close(fd); // the mapping remains
    return status;
}

static void unload_file(struct file *f)
{
    const size_t before = (size_t)(f->begin % MAX_PAGE);
    if (f->is_mapped)
        munmap((uint8_t *)f->data - before, before + (size_t)f->size);
    else if (f->data)
        qp_free_pages((void *)f->data, (size_t)f->size);
}

/* By its path: a file descriptor might be closed by a program that becomes a daemon. If the path
 * names another file by now, the mapped one was renamed or deleted, which does not change it. */
quip_status qp_file_check(const struct file *f, quip_error *error)
{
    struct stat st;
    if (!f->is_mapped || stat(f->name, &st))
        return QUIP_OK;
    const struct file_stamp now = stamp_of(&st);
    const bool is_it = now.device == f->stamp.device && now.inode == f->stamp.inode;
    return is_it && qp_file_stamp_differs(&f->stamp, &now) ? fail_changed(f, error) : QUIP_OK;
}

bool qp_path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool qp_path_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool qp_path_is_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

#else // no mmap: the file is read into memory

bool qp_path_exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

bool qp_path_is_folder(const char *path)
{
    (void)path;
    return false;
}

bool qp_path_is_same(const char *a, const char *b)
{
    (void)a, (void)b;
    return false;
}

static quip_status read_file(struct file *f, FILE *in, quip_error *error)
{
    if (fseek(in, 0, SEEK_END))
        return qp_fail(error, QUIP_E_IO, "%s: %s", f->name, strerror(errno));
    long size = ftell(in);
    if (size < 0 || fseek(in, 0, SEEK_SET))
        return qp_fail(error, QUIP_E_IO, "%s: %s", f->name, strerror(errno));
    if (size == 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: is empty", f->name);
    f->size = (uint64_t)size;
    void *data = qp_alloc_pages((size_t)size);
    if (!data)
        return qp_fail_memory(error, f->name, (size_t)size);
    f->data = data;
    if (fread(data, 1, (size_t)size, in) != (size_t)size)
        return qp_fail(error, QUIP_E_IO, "%s: cannot be read completely", f->name);
    return QUIP_OK;
}

static quip_status load_file(struct file *f, bool is_copied, quip_error *error)
{
    (void)is_copied; // it always is
    FILE *in = fopen(f->name, "rb");
    if (!in)
        return qp_fail_open(error, f->name);
    quip_status status = read_file(f, in, error);
    fclose(in);
    return status;
}

static quip_status load_part(struct file *f, int fd, uint64_t offset, uint64_t size, bool is_copied,
                             quip_error *error)
{
    (void)fd, (void)offset, (void)size, (void)is_copied;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: this system cannot map files", f->name);
}

static void unload_file(struct file *f)
{
    qp_free_pages((void *)f->data, (size_t)f->size);
}

quip_status qp_file_check(const struct file *f, quip_error *error)
{
    (void)f, (void)error;
    return QUIP_OK;
}

#endif

static quip_status open_path(struct file *f, const char *path, bool is_copied, quip_error *error)
{
    *f = (struct file){ .is_open = true };
    quip_status status = copy_name(f, path, error);
    if (!status)
        status = load_file(f, is_copied, error);
    if (status)
        qp_file_close(f);
    return status;
}

quip_status qp_file_open(struct file *f, const char *path, quip_error *error)
{
    return open_path(f, path, false, error);
}

quip_status qp_file_open_copy(struct file *f, const char *path, quip_error *error)
{
    return open_path(f, path, true, error);
}

quip_status qp_file_open_fd(struct file *f, const struct file_part *part, bool is_copied,
                            quip_error *error)
{
    *f = (struct file){ .is_open = true };
    quip_status status = copy_name(f, part->name, error);
    if (!status)
        status = load_part(f, part->fd, part->offset, part->size, is_copied, error);
    if (status)
        qp_file_close(f);
    return status;
}

quip_status qp_file_open_source(struct file *f, const quip_source *source, quip_error *error)
{
    *f = (struct file){ 0 };
    const char *name = source->name ? source->name : "model";
    if (!source->read_at)
        return qp_fail(error, QUIP_E_ARGUMENT, "%s: the source has no read_at", name);
    if (source->size == 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: is empty", name);
    quip_status status = copy_name(f, name, error);
    if (status)
        return status;
    f->source = *source;
    f->source.name = f->name;
    f->size = source->size;
    f->is_open = true;
    return QUIP_OK;
}

void qp_file_open_memory(struct file *f, const void *data, size_t size, const char *name)
{
    *f = (struct file){
        .data = data, .size = size, .name = name, .is_open = true, .is_borrowed = true
    };
}

void qp_file_open_part(struct file *part, const struct file *whole, uint64_t offset, uint64_t size)
{
    assert(whole->is_open && offset <= whole->size && size <= whole->size - offset);
    *part = (struct file){
        .data = whole->data ? whole->data + offset : NULL,
        .size = size,
        .name = whole->name,
        .source = whole->source,
        .begin = whole->begin + offset,
        .is_open = true,
        .is_borrowed = true,
    };
}

/* Reads in pieces: the source may be a browser, which copies each piece once more. */
quip_status qp_file_load(struct file *f, quip_error *error)
{
    enum {
        PIECE = 16 << 20
    };
    if (f->data) // already in memory, or mapped
        return QUIP_OK;
    const size_t size = (size_t)f->size;
    uint8_t *data = f->size > PTRDIFF_MAX ? NULL : qp_alloc_pages(size);
    if (!data)
        return qp_fail_memory(error, f->name, size);
    for (size_t at = 0; at < size; at += PIECE) {
        const size_t n = size - at < PIECE ? size - at : PIECE;
        quip_status status = qp_file_read(f, at, data + at, n, error);
        if (status) {
            qp_free_pages(data, size);
            return status;
        }
    }
    f->is_loaded = f->is_borrowed;
    f->data = data;
    return QUIP_OK;
}

void qp_file_close(struct file *f)
{
    if (f->is_open && !f->is_borrowed) {
        unload_file(f);
        free((void *)f->name);
    }
    if (f->is_loaded)
        qp_free_pages((void *)f->data, (size_t)f->size);
    if (f->release)
        f->release(f->release_user);
    *f = (struct file){ 0 };
}

quip_status qp_file_read(const struct file *f, uint64_t offset, void *to, size_t n,
                         quip_error *error)
{
    assert(f->is_open && (f->data || f->source.read_at));
    if (offset > f->size || n > f->size - offset)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has %" PRIu64 " bytes, expected %zu at offset %" PRIu64
                       "; is the file truncated?",
                       f->name, f->size, n, offset);
    if (n == 0)
        return QUIP_OK;
    if (f->data) {
        memcpy(to, f->data + offset, n);
        return QUIP_OK;
    }
    if (!f->source.read_at(f->source.user, f->begin + offset, to, n))
        return qp_fail(error, QUIP_E_IO, "%s: cannot read %zu bytes at offset %" PRIu64, f->name, n,
                       offset);
    return QUIP_OK;
}
