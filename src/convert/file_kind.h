/* file_kind.h: what a file is whose name promises something else (file_kind.c). */
#ifndef QP_FILE_KIND_H
#define QP_FILE_KIND_H

#include "base/base.h"

enum file_kind {
    FILE_OTHER,       // none of these; it may be what its name says
    FILE_LFS_POINTER, // three lines that stand for a file in Git's large file storage
    FILE_WEB_PAGE,    // an answer such as "sign in", saved under the name of the file
    FILE_UTF16,
    FILE_JSON,
    FILE_TIKTOKEN // lines of base64 and a rank: a vocabulary of bytes without its other rules
};
/* By its first bytes, n of them; the first 256 of a longer file are enough. */
enum file_kind qp_file_kind(const void *head, size_t n);
/* The same for a path; FILE_OTHER if it cannot be read. */
enum file_kind qp_path_kind(const char *path);
/* Fail, and say what the file is instead of `expected`, and what to do. */
quip_status qp_refuse_kind(const char *path, enum file_kind kind, const char *expected,
                           quip_error *error);

#endif
