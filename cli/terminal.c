/* terminal.c: the modes of the terminal while an answer is written, and its width.
 *
 * Keys that are pressed during an answer wait for the next line and are not echoed into the answer.
 * Ctrl-C and Ctrl-Z still send their signals. Ctrl-D is a key like any other: in the terminal's own
 * line mode it would end standard input. */
#include "cli.h"

#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before, quiet;
static volatile bool is_quiet; // read by the handlers of signals

void quieten_terminal(void)
{
    if (is_quiet || tcgetattr(STDIN_FILENO, &before))
        return;
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    quiet.c_lflag |= NOFLSH; // Ctrl-C must not drop the end of a line that is being shown
    quiet.c_cc[VMIN] = 1;
    quiet.c_cc[VTIME] = 0;
    is_quiet = tcsetattr(STDIN_FILENO, TCSADRAIN, &quiet) == 0;
}

void drop_keys(void)
{
    tcflush(STDIN_FILENO, TCIFLUSH);
}

void leave_quiet(void)
{
    is_quiet = false;
}

void unquieten_terminal(void)
{
    restore_terminal();
    is_quiet = false;
}

void restore_terminal(void)
{
    if (is_quiet)
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void continue_quiet(void)
{
    if (is_quiet && tcgetpgrp(STDIN_FILENO) == getpgrp()) // not in the background
        tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
}

int terminal_width(FILE *f)
{
    struct winsize size;
    return ioctl(fileno(f), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
