"""A program in a terminal: its keys, its screen, and what it leaves behind.

Terminal(command) starts the program behind a pseudo terminal. Screen is what xterm would show. It
knows the sequences that quip and libedit send, and fails with others.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
import unicodedata

SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([@-~])|\x1b[()]?.")


def width(character):
    if unicodedata.combining(character) or character in "\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class Screen:
    """Rows are never dropped, so the window is the last `height` ones."""

    def __init__(self, columns, height):
        self.columns, self.height = columns, height
        self.rows, self.x, self.y = [[]], 0, 0
        self.continues = set()  # rows that the terminal began because the one before was full

    def feed(self, text):
        """Returns what is not complete yet."""
        while text:
            if text[0] == "\x1b":
                found = SEQUENCE.match(text)
                if not found:
                    return text
                self.execute(found[1], found[2])
                text = text[found.end() :]
                continue
            self.put(text[0])
            text = text[1:]
        return ""

    def put(self, c):
        if c == "\r":
            self.x = 0
        elif c == "\n":
            self.move(self.y + 1)
        elif c == "\b":
            self.x = max(0, self.x - 1)
        elif c == "\t":
            self.x = min(self.columns - 1, self.x + 8 - self.x % 8)
        elif c >= " ":
            n = width(c)
            if n == 0 and self.x > 0 and len(self.rows[self.y]) >= self.x:
                before = self.x - 1 if self.rows[self.y][self.x - 1] else self.x - 2
                self.rows[self.y][before] += c
                return
            if self.x + n > self.columns:
                self.move(self.y + 1)
                self.continues.add(self.y)
                self.x = 0
            row = self.rows[self.y]
            row.extend(" " * (self.x + n - len(row)))
            row[self.x : self.x + n] = [c, ""][:n]
            self.x += n
        else:
            assert c in "\a", repr(c)

    def move(self, y):
        while len(self.rows) <= y:
            self.rows.append([])
        self.y = y

    def execute(self, numbers, name):
        n = int(numbers) if numbers and numbers.isdigit() else 1
        row = self.rows[self.y]
        if name is None or name in "hlm":
            return
        if name in "AF":
            self.y = max(0, self.y - n)
        elif name == "B":
            self.move(self.y + n)
        elif name == "C":
            self.x = min(self.columns - 1, self.x + n)
        elif name == "D":
            self.x = max(0, min(self.x, self.columns - 1) - n)
        elif name == "G":
            self.x = n - 1
        elif name == "H":
            self.y, self.x = max(0, len(self.rows) - self.height), 0
        elif name == "K":
            del row[self.x :]
        elif name == "J":
            del row[self.x :]
            del self.rows[self.y + 1 :]
            self.continues = {y for y in self.continues if y <= self.y}
        elif name == "P":
            del row[self.x : self.x + n]
        elif name == "@":
            row.extend(" " * (self.x - len(row)))
            row[self.x : self.x] = " " * n
            del row[self.columns :]
        else:
            raise AssertionError(f"unknown sequence ESC [ {numbers} {name}")

    def resize(self, columns, height):
        """Most terminals move the ends of rows to other rows then."""
        lines, cursor = [], None
        for y, row in enumerate(self.rows):
            if y not in self.continues:
                lines.append([])
            if y == self.y:
                cursor = (len(lines) - 1, len(lines[-1]) + self.x)
            lines[-1].extend(row)
        self.columns, self.height = columns, height
        self.rows, self.continues = [], set()
        for i, line in enumerate(lines):
            first = len(self.rows)
            for begin in range(0, max(1, len(line)), columns):
                if begin:
                    self.continues.add(len(self.rows))
                self.rows.append(line[begin : begin + columns])
            if i == cursor[0]:
                self.y, self.x = first + cursor[1] // columns, cursor[1] % columns
                self.move(self.y)

    def lines(self):
        return ["".join(row).rstrip() for row in self.rows]

    def text(self):
        return "\n".join(self.lines())


class Terminal:
    def __init__(self, command, env, columns=80, height=24):
        self.screen, self.rest, self.bytes = Screen(columns, height), "", b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            self.set_size(0, columns, height)
            os.execvpe(command[0], [str(word) for word in command], env)
        self.exit_status = None

    @staticmethod
    def set_size(fd, columns, height):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, columns, 0, 0))

    def resize(self, columns, height=24):
        self.read(0.2)
        self.screen.resize(columns, height)
        self.set_size(self.fd, columns, height)
        self.read(0.3)

    def type(self, keys, wait=0.05):
        os.write(self.fd, keys.encode() if isinstance(keys, str) else keys)
        self.read(wait)

    def read(self, seconds):
        """Show what arrives within so long; False at the end."""
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                break
            try:
                more = os.read(self.fd, 1 << 16)
            except OSError:
                more = b""  # Linux: the other side has closed
            if not more:
                return False
            self.bytes += more
            text = (self.rest.encode("utf-8", "surrogateescape") + more).decode("utf-8", "surrogateescape")
            whole = text.rstrip("".join(map(chr, range(0xDC80, 0xDD00))))
            self.rest = self.screen.feed(whole) + text[len(whole) :]
        return True

    def wait_until(self, is_so, what, seconds=30):
        limit = time.monotonic() + seconds
        while not is_so():
            if not self.read(0.05) and not is_so() or time.monotonic() > limit:
                raise AssertionError(f"{what} does not appear:\n{self.screen.text()}")

    def wait_for(self, pattern):
        self.wait_until(lambda: re.search(pattern, self.screen.text(), re.M), repr(pattern))

    def wait_for_rows(self, *rows):
        """Wait until these rows stand one below the other."""
        n, lines = len(rows), self.screen.lines
        self.wait_until(
            lambda: any(lines()[i : i + n] == list(rows) for i in range(len(lines()) - n + 1)), repr(rows)
        )

    def wait_for_modes(self, on=0, off=0):
        """Wait until the local modes of the terminal are so, such as termios.ECHO."""
        self.wait_until(lambda: self.modes() & on == on and not self.modes() & off, f"modes {on}, not {off},")

    def wait_for_prompt(self, n):
        """Wait until the n-th prompt stands on the screen, and the editor reads keys."""

        def is_there():
            n_prompts = sum(line.startswith(">") for line in self.screen.lines())
            return n_prompts >= n and not self.modes() & termios.ICANON

        self.wait_until(is_there, f"prompt {n}")
        self.read(0.1)

    def modes(self):
        """The local modes of the terminal, such as termios.ECHO."""
        return termios.tcgetattr(self.fd)[3]

    def signal(self, number):
        os.kill(self.pid, number)

    def end(self, seconds=30):
        """Wait for the end of the program; returns its exit status, negative for a signal."""
        limit = time.monotonic() + seconds
        while self.exit_status is None:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"the program does not end:\n{self.screen.text()}")
        self.read(0.1)
        os.close(self.fd)
        return self.exit_status
