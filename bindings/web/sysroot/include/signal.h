/* signal.h: WebAssembly has no signals; what thread.c says about them does nothing. */
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
