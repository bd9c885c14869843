"""The end of a program: whatever still runs or is open then, the program ends, and says nothing that
its user did not cause."""

import subprocess
import sys

import pytest

BEGIN = """
import asyncio, atexit, os, sys, threading, time
import quip
model = quip.Model(sys.argv[1])
LONG = "x" * 7000  # takes seconds
"""


def end_of(model_path, script, *, stderr="", code=0):
    """Run a program to its end; what it printed."""
    command = [sys.executable, "-X", "faulthandler", "-c", BEGIN + script, model_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, stderr)
    return done.stdout


def test_open_objects_are_no_noise(model_path):
    end_of(
        model_path,
        """
session = model.session(greedy=True)
session.myself = [session]  # the garbage collector frees it, late
answer = session.say("x")
next(answer)
class Keeper:
    def __del__(self): self.session.close()
keeper = Keeper()
keeper.session = model.session()
sys.modules["keeper"] = keeper
""",
    )


def test_ask_at_exit(model_path):
    said = end_of(
        model_path,
        """
session = model.session(max_output_tokens=4, greedy=True)
atexit.register(lambda: print(session.ask("x") == model.session(max_output_tokens=4, greedy=True).ask("x")))
""",
    )
    assert said == "True\n"


def test_ask_when_no_thread_can_be_started(model_path):
    """As at the end of a program from Python 3.12 on."""
    said = end_of(
        model_path,
        """
session = model.session(max_output_tokens=4, greedy=True)
text = model.session(max_output_tokens=4, greedy=True).ask("x")
def refuse(*words): raise RuntimeError("can't create new thread at interpreter shutdown")
threading.Thread.start = refuse
print(session.ask("x") == text)
session.rewind(0)
async def main():
    loop = asyncio.get_running_loop()
    loop.run_in_executor = refuse
    print(await session.ask_async("x") == text)
asyncio.run(main())
try:
    session.append(quip.Role.NONE, LONG)
except quip.ContextFullError as error:
    print("full")
from quip.genai import LlmInference
llm = LlmInference.create_from_model_path(sys.argv[1])
for _ in range(2):  # also a second time: the session is not busy
    try:
        llm.generate_response_async("x")
    except RuntimeError as error:
        print(error)
""",
    )
    words = said.splitlines()
    assert words[:3] == ["True", "True", "full"]
    assert words[3:] == ["can't create new thread at interpreter shutdown"] * 2


def test_asyncio_at_exit(model_path):
    said = end_of(
        model_path,
        """
session = model.session(max_output_tokens=4, greedy=True)
def bye():
    try:
        print("answer", asyncio.run(session.ask_async("x")))
    except RuntimeError as error:
        print("error", error)
atexit.register(bye)
""",
    )
    assert said.startswith(("answer", "error"))


@pytest.mark.parametrize(
    "work",
    [
        "session.append(quip.Role.NONE, LONG)",
        "session.prefill_logits([5] * 7000)",  # which calls back into Python
        "session.ask('x'); session.rewind(0)",
    ],
)
def test_a_daemon_thread_does_not_keep_the_program(model_path, work):
    end_of(
        model_path,
        f"""
session = model.session(n_context=8192)
other = model.session()  # is still open at the end, and shares threads with the one that runs
class Closer:
    def __del__(self): session.close(); other.close()
sys.modules["closer"] = Closer()
def forever():
    while True:
        {work}
        session.rewind(0)
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
""",
    )


def test_a_session_in_use_says_so_at_exit(model_path):
    said = end_of(
        model_path,
        """
session = model.session(n_context=8192)
def forever():
    while True:
        session.append(quip.Role.NONE, LONG)
        session.rewind(0)
threading.Thread(target=forever, daemon=True).start()
def bye():
    try:
        session.ask("x")
    except RuntimeError as error:
        print(error)
time.sleep(0.3)
atexit.register(bye)
""",
    )
    assert said == "the session is in use by another thread\n"


def test_a_listener_hears_the_end_after_the_main_thread(model_path):
    said = end_of(
        model_path,
        """
from quip.genai import LlmInference
llm = LlmInference.create_from_model_path(sys.argv[1])
llm.generate_response_async("x", lambda partial, done: done and print("done"))
""",
    )
    assert said == "done\n"


def test_exit_in_the_middle_of_an_answer(model_path):
    end_of(model_path, "for _ in model.session(greedy=True).say('x'): sys.exit(3)", code=3)


def test_exit_from_a_signal_handler(model_path):
    """As services end: the handler of SIGTERM raises SystemExit while the model runs."""
    end_of(
        model_path,
        """
import signal
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
session = model.session(n_context=8192)
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
while True:
    session.append(quip.Role.NONE, LONG)
    session.rewind(0)
""",
        code=7,
    )
