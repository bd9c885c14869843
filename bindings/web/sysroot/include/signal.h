/* signal.h: WebAssembly has no signals. These names let pool.c compile; they do nothing. */
#ifndef QUIP_WEB_SIGNAL_H
#define QUIP_WEB_SIGNAL_H

typedef int sigset_t;
enum {
    SIG_SETMASK
};
static inline int sigfillset(sigset_t *set)
{
    return *set = 0;
}

#endif
