/* api.h: instead of wasi-libc's, which refuses 64-bit pointers: as much as stdio.h and errno.h ask
 * for. No system ever sees these numbers. */
#ifndef QUIP_WEB_WASI_API_H
#define QUIP_WEB_WASI_API_H

#define __WASI_WHENCE_SET 0
#define __WASI_WHENCE_CUR 1
#define __WASI_WHENCE_END 2

#define __WASI_ERRNO_AGAIN 6

#endif
