/* api.h: replaces the file of wasi-libc, which rejects 64-bit pointers. It has what stdio.h and
 * errno.h need from it. The numbers never reach a system. */
#ifndef QUIP_WEB_WASI_API_H
#define QUIP_WEB_WASI_API_H

#define __WASI_WHENCE_SET 0
#define __WASI_WHENCE_CUR 1
#define __WASI_WHENCE_END 2

#define __WASI_ERRNO_AGAIN 6

#endif
