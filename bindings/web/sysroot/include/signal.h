/* signal.h: WebAssembly has no signals; what pool.c does with them has no effect. */
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
