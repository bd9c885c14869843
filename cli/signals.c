/* signals.c: Ctrl-C and the other signals of a terminal.
 * In:  what the system sends to the program.
 * Out: the running call on a session is cancelled, work on files stops, and a conversation in a
 *      terminal learns of it between two keys. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

static quip_session *volatile interrupted_session; // the signal handler has no argument
static volatile sig_atomic_t n_interrupts;
static volatile sig_atomic_t ending; // SIGTERM, SIGHUP or SIGQUIT during a conversation
static int wake[2] = { -1, -1 };     // a pipe: each signal writes its number, for read_key

/* Signals of a system that shuts down, a terminal that closes and a pipe without a reader. They
 * stop work on a file like Ctrl-C, so that no incomplete file stays. */
static const int endings[] = { SIGTERM, SIGHUP, SIGPIPE };

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    n_interrupts = 1;
    quip_session *session = interrupted_session;
    if (session)
        quip_session_cancel(session); // safe in a handler: it stores one atomic
}

static void handle(int signal_number, void (*handler)(int), int flags)
{
    struct sigaction before, action = { .sa_handler = handler, .sa_flags = flags };
    sigemptyset(&action.sa_mask);
    if (!sigaction(signal_number, NULL, &before) && before.sa_handler != SIG_IGN) // nohup
        sigaction(signal_number, &action, NULL);
}

void catch_interrupt(quip_session *session)
{
    n_interrupts = ending != 0;
    interrupted_session = session;
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    for (size_t i = 0; !session && i < QP_COUNT(endings); i++)
        handle(endings[i], on_interrupt, SA_RESTART);
}

void release_interrupt(void)
{
    signal(SIGINT, SIG_DFL);
    for (size_t i = 0; i < QP_COUNT(endings); i++) {
        struct sigaction now;
        if (!sigaction(endings[i], NULL, &now) && now.sa_handler == on_interrupt)
            signal(endings[i], SIG_DFL);
    }
    interrupted_session = NULL;
}

void ignore_interrupt(void)
{
    signal(SIGINT, SIG_IGN);
    interrupted_session = NULL;
}

bool was_interrupted(void)
{
    return n_interrupts != 0;
}

/* ---- signals of a conversation in a terminal ---- */

static void tell(int signal_number)
{
    const int saved = errno;
    const unsigned char byte = (unsigned char)signal_number;
    (void)!write(wake[1], &byte, 1); // if the pipe is full, it is read soon
    errno = saved;
}

static void on_ending(int signal_number)
{
    ending = signal_number;
    on_interrupt(signal_number);
    tell(signal_number);
}

/* Ctrl-Z. The handler was installed for one signal: the second one stops the program. */
static void on_stop(int signal_number)
{
    const int saved = errno;
    restore_terminal();
    raise(signal_number);
    errno = saved;
}

static void on_continue(int signal_number)
{
    const int saved = errno;
    handle(SIGTSTP, on_stop, SA_RESTART | SA_RESETHAND | SA_NODEFER);
    continue_quiet();
    tell(signal_number);
    errno = saved;
}

bool begin_signals(void)
{
    if (pipe(wake))
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(wake[i], F_SETFL, O_NONBLOCK);
        fcntl(wake[i], F_SETFD, FD_CLOEXEC);
    }
    ignore_interrupt(); // between two lines the editor does not control the terminal
    handle(SIGTERM, on_ending, SA_RESTART);
    handle(SIGHUP, on_ending, SA_RESTART);
    handle(SIGQUIT, on_ending, SA_RESTART);
    handle(SIGWINCH, tell, SA_RESTART);
    handle(SIGCONT, on_continue, SA_RESTART);
    handle(SIGTSTP, on_stop, SA_RESTART | SA_RESETHAND | SA_NODEFER);
    return true;
}

int ending_signal(void)
{
    return ending;
}

void forget_signals(void)
{
    unsigned char bytes[64];
    while (read(wake[0], bytes, sizeof bytes) > 0)
        ;
}

int wait_for_key(void)
{
    struct pollfd fds[] = { { .fd = wake[0], .events = POLLIN },
                            { .fd = STDIN_FILENO, .events = POLLIN } };
    unsigned char signal_number;
    while (!ending) {
        if (poll(fds, QP_COUNT(fds), -1) < 0 && errno != EINTR)
            ending = SIGHUP;
        if (read(wake[0], &signal_number, 1) == 1)
            return signal_number;
        if (fds[1].revents)
            return 0;
    }
    return ending;
}
