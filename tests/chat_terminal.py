#!/usr/bin/env python3
"""`quip chat` in a terminal, as its users type: keys, pastes, signals, and what the screen shows.

    tests/chat_terminal.py BUILD [unittest options]

Models are those of tests/cli.py, and without them the tests are skipped.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import termios
import time
import unittest

import cli

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "support"))
from terminal import Terminal  # noqa: E402


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cli.WithModel.setUpClass.__func__(cls)
        # a copy of the checkpoint with a long context, for answers that take a while
        checkpoint = cli.WORK / "long"
        shutil.copytree(cls.checkpoint, checkpoint)
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100000}))
        cls.model = cli.WORK / "long.bin"
        cli.quip("convert", checkpoint, cls.model, "--weights", "f32", check=0)

    def setUp(self):
        self.cache = pathlib.Path(tempfile.mkdtemp(dir=cli.WORK))
        self.terminals = []

    def tearDown(self):
        for t in self.terminals:
            if t.exit_status is None:
                os.kill(t.pid, signal.SIGKILL)
                t.end()

    def env(self, **more):
        return {**cli.terminal_env(), "XDG_CACHE_HOME": str(self.cache), **more}

    def chat(self, *options, env=None, columns=80, model=None, prompt=1):
        t = Terminal([cli.QUIP, "chat", model or self.model, "-n", "8", "--seed", "1", *options], env or self.env(), columns)
        self.terminals.append(t)
        if prompt:
            t.wait_for_prompt(prompt)
        return t

    def leave(self, terminal, status=0):
        terminal.type("\x04")
        self.assertEqual(terminal.end(), status, terminal.screen.text())
        self.assert_usable(terminal)

    def assert_usable(self, terminal):
        self.assertEqual(terminal.bytes.count(b"\x1b[?2004h"), terminal.bytes.count(b"\x1b[?2004l"))

    def begin_answer(self, terminal):
        """Type a turn, and wait until its answer is being written."""
        n = len(terminal.screen.text())
        terminal.type("light\r")
        terminal.wait_until(lambda: len(terminal.screen.text()) > n + 40, "an answer")

    def history(self):
        path = self.cache / "quip/history"
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        return [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line) for line in lines]

    def prompt_tokens(self, text):
        """How many tokens the turn has as the first one of a conversation."""
        done = cli.quip("run", self.model, "-", "-n", 1, "--json", stdin=text + "\n", check=0)
        return json.loads(done.stdout)["prompt_tokens"]

    def assert_turn(self, terminal, text, n_prompt=2):
        """The first turn of the conversation was this text."""
        terminal.wait_for_prompt(n_prompt)
        terminal.type("/stats\r")
        terminal.wait_for(r"^context: \d+ of")
        self.assertIn(f"prompt: {self.prompt_tokens(text)} tokens", terminal.screen.text())
        self.assertEqual(self.history()[0], text)

    # ---- several lines ----

    def test_pasted_lines_are_one_turn(self):
        text = "def f(x):\n\treturn x + 1\n/help\n\nWhat is \"this\"?"
        for line_end in ["\r", "\n", "\r\n"]:
            t = self.chat()
            t.type("\x1b[200~" + text.replace("\n", line_end) + "\x1b[201~")
            t.wait_for_rows("> def f(x):", "        return x + 1", "/help", "", 'What is "this"?')
            t.type("\r")
            self.assert_turn(t, text)
            self.leave(t)
            (self.cache / "quip/history").unlink()

    def test_a_paste_can_be_edited_and_comes_back(self):
        t = self.chat()
        t.type("ac\x1b[D\x1b[200~b\nB\x1b[201~d\r")
        self.assert_turn(t, "ab\nBdc")
        t.wait_for_prompt(3)
        t.type("\x1b[A\x1b[A\x01X\r")
        t.wait_for_prompt(4)
        self.assertEqual(self.history()[-1], "Xab\nBdc")
        self.leave(t)

    def test_arrows_move_between_lines(self):
        t = self.chat()
        t.type("earlier\r")
        t.wait_for_prompt(2)
        t.type("abc\x1b\rd\x1b\r\x1b\refghi")
        t.type("\x1b[D\x1b[A\x1b[A\x1b[AX\x1b[BY\x1b[B\x1b[BZ")  # columns 4 -> 0 -> 0 -> 0, 1, 2 -> 0 -> 0
        t.wait_for_rows("> Xabc", "dY", "", "Zefghi")
        t.type("\x1b[A\x1b[A\x1bOA\x1b[A")
        t.wait_for_rows("> earlier", "", "", "")
        t.type("\x1b[B\r")
        t.wait_for_prompt(3)
        self.assertEqual(self.history()[1], "Xabc\ndY\n\nZefghi")
        self.leave(t)

    def test_a_long_paste(self):
        text = "\n".join(f"{i} /bye \"\"\" {'light ' * 20}" for i in range(400))
        t = self.chat("--context", "100")  # so that no answer has to be waited for
        t.type("\x1b[200~" + text[:20000])
        t.type(text[20000:] + "\x1b[201~")
        t.wait_for("^399 ")
        t.type("\r")
        t.wait_for(r"^>\s*\Z")
        self.assertIn("tokens do not fit", t.screen.text())
        self.assertEqual(self.history(), [text])
        self.leave(t)

    def test_a_paste_that_does_not_end(self):
        t = self.chat()
        t.type("\x1b[200~abc\x03")
        t.type("\x03")
        t.wait_for("press Ctrl-C again")
        t.wait_for_prompt(2)
        self.leave(t)

    def test_lines_are_typed(self):
        ways = ["a\x1b\rb\x1b\n\x1b[13;2uc", "a\\\rb\\\r\\\rc", "a\\\rb\x01\x05\\\r\\\rc"]
        for keys in ways:
            t = self.chat()
            t.type(keys + "\r")
            self.assert_turn(t, "a\nb\n\nc")
            self.leave(t)
            (self.cache / "quip/history").unlink()

    def test_quotes_hold_lines(self):
        t = self.chat()
        t.type('"""a\rb\r\r/bye\\\rc"""\r')
        t.wait_for_prompt(2)
        t.type("/stats\r")
        t.wait_for("^context")
        self.assertIn(f"prompt: {self.prompt_tokens(chr(10).join(['a', 'b', '', '/bye' + chr(92), 'c']))} tokens", t.screen.text())
        t.wait_for_prompt(3)
        t.type('"""/bye"""\r')  # a text, not a command
        t.wait_for_prompt(4)
        self.leave(t)

    # ---- characters ----

    def test_text_is_utf8_without_a_locale(self):
        text = "Was heißt café? 漢字 🎉"
        for locale in [{"LC_ALL": "C"}, {}, {"LANG": "C"}, {"LC_ALL": "en_US.ISO-8859-1"}]:
            env = {k: v for k, v in self.env().items() if not k.startswith("LC_") and k != "LANG"}
            t = self.chat(env={**env, **locale})
            t.type(text)
            t.wait_for_rows("> " + text)
            t.type("\r")
            self.assert_turn(t, text)
            self.leave(t)
            (self.cache / "quip/history").unlink()

    def test_wide_characters_are_erased(self):
        t = self.chat()
        t.type("請翻譯\x7f\x7f文a")
        t.wait_for_rows("> 請文a")
        t.type("\x1b[D\x1b[D字")
        t.wait_for_rows("> 請字文a")
        t.type("\x03\x03")
        self.assertEqual(t.end(), 0)

    def test_bytes_that_are_not_utf8_are_dropped(self):
        t = self.chat()
        t.type(b"a\xfcb\xc3c\xe2\x82d\xf0\x9f\xc3\xa9\x80e\r")
        self.assert_turn(t, "abcdée")
        self.leave(t)

    # ---- the terminal ----

    def test_resize(self):
        text = "one two three four five six seven eight nine ten eleven twelve"
        t = self.chat()
        t.type(text + "\x01")
        t.wait_for_rows("> " + text)
        t.resize(40)
        t.type("X\x05Y")
        t.wait_for_rows("> Xone two three four five six seven eig", "ht nine ten eleven twelveY")
        self.assertEqual(t.screen.text().count("one two"), 1)
        t.resize(100)
        t.type("Z")
        t.wait_for_rows(f"> X{text}YZ")
        self.assertEqual(t.screen.text().count("one two"), 1)
        t.type("\x03\x03")
        self.assertEqual(t.end(), 0)

    def test_dumb_terminals_get_no_sequences(self):
        t = self.chat(env=self.env(TERM="dumb"))
        t.type("one\r")
        t.wait_for_prompt(2)
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertNotIn(b"\x1b", t.bytes)

    def test_unknown_terminals_are_like_xterm(self):
        t = self.chat(env=self.env(TERM="no-such-terminal"))
        self.assertNotIn("dumb", t.screen.text())
        t.type("ab\x1b[D\x1b[200~\rX\x1b[201~Y\x1b[DZ")
        t.wait_for_rows("> a", "XZYb")
        t.type("\x03\x03")
        self.assertEqual(t.end(), 0)

    def test_a_terminal_without_a_size(self):
        t = self.chat(columns=80)
        t.set_size(t.fd, 0, 0)  # as in containers
        t.type("one two\x1b[D\x7f\r")
        t.wait_for_prompt(2)
        self.leave(t)
        self.assertEqual(self.history(), ["one to"])

    def test_keys_before_the_prompt_wait(self):
        t = self.chat(prompt=0)
        t.type("one\rtw")
        t.wait_for_prompt(2)
        t.type("o\r")
        t.wait_for_prompt(3)
        self.leave(t)
        self.assertEqual(self.history(), ["one", "two"])

    def test_words_wrap(self):
        t = self.chat("-n", "200", "--greedy", "--stop", "`", columns=40)
        t.type("light\r")
        t.wait_for_prompt(2)
        rows = t.screen.lines()
        rows = rows[rows.index("> light") + 1 : -1]
        whole = cli.quip("chat", self.model, "-n", 200, "--greedy", "--stop", "`", stdin="light\n", check=0).stdout.decode()
        self.assertEqual("".join("".join(rows).split()), "".join(whole.split()))
        self.assertLessEqual(max(map(len, rows)), 40)
        self.leave(t)

    def shell(self):
        """A shell with job control."""
        t = Terminal(["sh", "-i"], self.env(PS1="$ ", ENV="", HISTFILE="/dev/null"))
        self.terminals.append(t)
        t.wait_for(r"^\$")
        return t

    def test_suspend_at_the_prompt(self):
        t = self.shell()
        t.type(f"{cli.QUIP} chat {self.model} -n 8 --seed 1\r")
        t.wait_for_prompt(1)
        t.type("ab\x1b[D\x1a")
        t.wait_for(r"^\$ *\Z")
        t.wait_for_modes(on=termios.ECHO)
        t.type("echo in-the-shell\r")
        t.wait_for("^in-the-shell")
        t.type("fg\r")
        t.wait_for_prompt(2)
        t.type("X\x05Y\r")
        t.wait_for_prompt(3)
        t.wait_for_rows("> aXbY")
        self.assertEqual(self.history(), ["aXbY"])
        t.type("\x04")
        t.wait_for(r"^\$ *\Z")
        t.type("exit\r")
        self.assertEqual(t.end(), 0)

    def test_suspend_during_an_answer(self):
        t = self.shell()
        t.type(f"{cli.QUIP} chat {self.model} -c 60000 -t 1\r")
        t.wait_for_prompt(1)
        self.begin_answer(t)
        t.type("\x1a")
        t.wait_for(r"^\$ *\Z")
        t.wait_for_modes(on=termios.ECHO | termios.ICANON)
        t.type("fg\r")
        t.wait_for_modes(off=termios.ECHO)
        t.type("\x03")
        t.wait_for_prompt(2)
        t.type("\x04")
        t.wait_for(r"^\$ *\Z")
        t.type("exit\r")
        self.assertEqual(t.end(), 0)

    # ---- keys and signals ----

    def test_ctrl_c_at_the_prompt(self):
        t = self.chat()
        t.type("one\r")
        t.wait_for_prompt(2)
        t.type("abc\x03")
        t.wait_for("press Ctrl-C again")
        t.wait_for_prompt(3)
        t.type("\x1b[A")
        t.wait_for(r"^> one\Z")
        t.type("\x03")
        self.assertEqual(t.end(), 0)
        self.assertEqual(self.history(), ["one"])

    def test_keys_during_an_answer_wait(self):
        t = self.chat("-c", "60000", "-n", "60000", "-t", "1")
        self.begin_answer(t)
        t.type("/stats\x01")
        t.wait_for_modes(off=termios.ECHO)
        t.type("\x03")  # also drops what was typed, as terminals do
        t.wait_for_prompt(2)
        t.type("/set temperature\x1b[D\x1b[D\x7fx\r")
        t.wait_for("unknown setting temperatxre")
        self.leave(t)

    def test_ctrl_d_during_an_answer(self):
        t = self.chat("-c", "60000", "-n", "3000", "-t", "1")
        self.begin_answer(t)
        t.type("a\x04bc\x1b[D\x7f")  # the Ctrl-D deletes nothing: it comes after the "a"
        t.wait_for(r"^> ac")
        t.type("\r")
        t.wait_for_prompt(3)
        self.leave(t)
        self.assertEqual(self.history(), ["light", "ac"])

    def test_signals_keep_history_and_terminal(self):
        for number in [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]:
            for is_answering in [False, True]:
                t = self.chat("-c", "60000", "-n", "60000")
                modes = t.modes()
                self.begin_answer(t)
                if not is_answering:
                    t.type("\x03")
                    t.wait_for_prompt(2)
                    t.type("not ended")
                t.signal(number)
                self.assertEqual(t.end(), 128 + number)
                self.assert_usable(t)
                self.assertEqual(self.history(), ["light"])
                (self.cache / "quip/history").unlink()
                self.assertTrue(modes)

    def test_the_terminal_closes(self):
        t = self.chat("-c", "60000", "-n", "60000")
        self.begin_answer(t)
        os.close(t.fd)
        for _ in range(200):
            pid, status = os.waitpid(t.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.05)
        t.exit_status = 0
        self.assertTrue(pid, "the program goes on without a terminal")
        self.assertEqual(self.history(), ["light"])

    # ---- history ----

    def test_history_can_be_left_out(self):
        t = self.chat("--no-history")
        t.type("secret\r")
        t.wait_for_prompt(2)
        self.leave(t)
        self.assertEqual(self.history(), [])

    def test_a_history_that_is_something_else(self):
        path = self.cache / "quip/history"
        path.parent.mkdir()
        for kind in ["text", "null"]:
            if kind == "text":
                path.write_text("no history\n")
            else:
                path.unlink()
                path.symlink_to("/dev/null")
            before = os.stat("/dev/null").st_mode
            t = self.chat()
            t.type("one\r")
            t.wait_for_prompt(2)
            self.leave(t)
            self.assertEqual(os.stat("/dev/null").st_mode, before)
        t = self.chat()
        self.leave(t)

    def test_two_conversations_share_the_history(self):
        first, second = self.chat(), self.chat()
        for t, text in [(first, "one\r"), (second, "two\r"), (first, "three\r")]:
            n = sum(line.startswith(">") for line in t.screen.lines())
            t.type(text)
            t.wait_for_prompt(n + 1)
        self.leave(second)
        self.leave(first)
        self.assertEqual(self.history(), ["one", "two", "three"])
        self.assertEqual((self.cache / "quip/history").stat().st_mode & 0o777, 0o600)

    # ---- commands ----

    def test_commands(self):
        t = self.chat()
        steps = [
            ("/help", "Alt-Enter"),
            ("/?", "Alt-Enter"),
            ("/nonsense", "unknown command /nonsense; /help"),
            ("/bye now", "/bye has no argument"),
            ("/set temperature 0.5", r"^  temperature +0\.5 "),
            ("/set seed=7", r"^  seed +7 "),
            ("/set top_k 40", r"^  top-k +40 "),
            ("/set top-k forty", 'top-k is "forty"; must be a whole number'),
            ("/set min-p 7", 'min-p is "7"; must be a number from 0 to 1'),
            ("/set stats on", r"^  stats +on "),
            ("/set stats perhaps", "must be on or off"),
            ("/set context 9", "context cannot change during a conversation"),
            ("/set num_ctx 9", "unknown setting num_ctx; /set lists"),
            ("/set system Be brief.", r"^  system +Be brief\. "),
            ("/set", r"^  top-k +40 .*\n(.*\n)*  stats +on "),
        ]
        for i, (typed, expected) in enumerate(steps):
            t.type(typed + "\r")
            t.wait_for_prompt(i + 2)
            screen = t.screen.text()
            self.assertRegex(screen[screen.rindex("> " + typed) :], re.compile(expected, re.M))
        n = len(steps) + 1
        for typed in ["one", "/clear", "one", "/reset", "/set temperature 0", "one"]:
            t.type(typed + "\r")
            t.wait_for_prompt(n := n + 1)
        answers = re.findall(r"^> one\n(.*?)^first token", t.screen.text(), re.M | re.S)
        self.assertEqual(answers[0], answers[1], "the same seed and system prompt")
        t.type("/quit\r")
        self.assertEqual(t.end(), 0)
        for word in ["/bye", "/exit", "exit", "quit"]:
            t = self.chat()
            t.type(word + "\r")
            self.assertEqual(t.end(), 0)

    def test_the_system_prompt_changes_only_at_the_start(self):
        t = self.chat("--chat-template", "gemma")
        for i, typed in enumerate(["one", "/set system Be brief.", "/clear", "/set system Be brief."]):
            t.type(typed + "\r")
            t.wait_for_prompt(i + 2)
        self.assertEqual(t.screen.text().count("system cannot change after the first turn; first /clear"), 1)
        self.assertEqual(len(re.findall(r"^  system +Be brief\.", t.screen.text(), re.M)), 1)
        self.leave(t)

    def run_in_terminal(self, *args):
        t = Terminal([cli.QUIP, "run", self.model, *args], self.env())
        self.terminals.append(t)
        return t

    def test_run_in_a_terminal(self):
        want = cli.quip("run", self.model, "one", "-n", 3, "--greedy", check=0).stdout.decode(errors="replace").rstrip()
        t = self.run_in_terminal("one", "-n", "3", "--greedy")
        self.assertEqual(t.end(), 0)
        self.assertEqual(t.screen.lines()[0], want)
        t = self.run_in_terminal("-", "-n", "3", "--greedy")
        t.wait_for("type the prompt; Ctrl-D")
        t.type("one\r\x04")
        self.assertEqual(t.end(), 0)
        self.assertIn(want, t.screen.lines())
        t = self.run_in_terminal()
        self.assertEqual(t.end(), 2)
        self.assertIn("quip chat holds a conversation", t.screen.text())

    def test_settings_are_those_of_the_options(self):
        drawn = cli.quip("chat", self.model, "-n", 8, "--temperature", 2, "--seed", 3, stdin="one\n", check=0).stdout
        done = cli.quip("chat", self.model, "-n", 8, stdin="/set temperature 2\n/set seed 3\none\n", check=0)
        self.assertEqual(done.stdout, drawn)
        self.assertNotEqual(cli.quip("chat", self.model, "-n", 8, "--seed", 3, stdin="one\n", check=0).stdout, drawn)

    def test_a_base_model_is_said_to_be_one(self):
        base = cli.WORK / "base.bin"
        cli.quip("convert", cli.GOLDEN / "falcon-rw", base, check=0)
        t = self.chat(model=base)
        self.assertIn("is a base model", t.screen.text().replace("\n", ""))
        self.leave(t)
        self.assertIn(b"quip run", cli.quip("chat", base, stdin="", check=0).stderr)
        for options in [["--raw"], ["--chat-template", "chatml"]]:
            self.assertNotIn(b"base model", cli.quip("chat", base, *options, stdin="", check=0).stderr)
        tuned = cli.WORK / "tuned.bin"
        cli.quip("convert", cli.GOLDEN / "falcon-rw", tuned, "--chat-template", "chatml", check=0)
        self.assertNotIn(b"base model", cli.quip("chat", tuned, stdin="", check=0).stderr)

    def test_a_turn_that_does_not_fit(self):
        t = self.chat("--context", "40")
        t.type("light " * 50 + "\r")
        t.wait_for("/clear starts")
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_answers_to_a_file(self):
        """stdin is a terminal, stdout is not: there is a prompt."""
        out = cli.WORK / "answers"
        t = Terminal(["sh", "-c", f"{cli.QUIP} chat {self.model} -n 8 --greedy >{out}"], self.env())
        self.terminals.append(t)
        t.wait_for(">")
        t.type("one\r")
        t.wait_until(lambda: out.stat().st_size > 0, "an answer in the file")
        t.type("\x04")
        self.assertEqual(t.end(), 0)
        self.assertEqual(out.read_bytes(), cli.quip("chat", self.model, "-n", 8, "--greedy", stdin="one\n", check=0).stdout)


if __name__ == "__main__":
    cli.QUIP = str(pathlib.Path(sys.argv[1]).resolve() / "quip")
    with tempfile.TemporaryDirectory() as folder:
        cli.WORK = pathlib.Path(folder)
        unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
