import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

import quip
from quip import _abi

LONG = "x" * 7000  # each is one token of the tiny model


@pytest.fixture
def session(model):
    with model.session(max_output_tokens=24, greedy=True) as session:
        yield session


def test_answer_comes_in_pieces(model, session):
    answer = session.say("one")
    pieces = list(answer)
    assert len(pieces) > 1 and all(pieces)
    assert answer.text() == "".join(pieces)
    assert model.session(max_output_tokens=24, greedy=True).ask("one") == answer.text()
    result = answer.result
    assert result.finish_reason in (quip.FinishReason.LENGTH, quip.FinishReason.STOP)
    assert 1 <= result.n_output_tokens <= 24 and result.n_prompt_tokens > 0
    assert result.seed > 0
    assert result.backend == model.info.backend


def test_prompt_tokens_are_all_that_was_fed(session):
    before = 0
    for prompt in ["one", "two"]:
        session.ask(prompt)
        result = session.result
        n_kept = result.n_output_tokens - (result.finish_reason == quip.FinishReason.STOP)
        assert session.position - before == result.n_prompt_tokens + n_kept
        before = session.position


def test_leaving_the_loop_ends_the_work(session):
    for _ in session.say("one"):
        break
    position = session.position
    time.sleep(0.05)
    assert session.position == position
    assert session.ask("two")


def test_an_answer_that_is_over_cannot_be_continued(session):
    answer = session.say("one")
    next(answer)
    session.append(quip.Role.USER, "two")
    with pytest.raises(RuntimeError, match="has continued"):
        next(answer)


def test_options(model):
    greedy = model.session(max_output_tokens=16, greedy=True).ask("x")
    assert model.session(max_output_tokens=16, temperature=0).ask("x") == greedy
    drawn = model.session(max_output_tokens=16, temperature=2.0, seed=7)
    text = drawn.ask("x")
    assert drawn.result.seed == 7 and text != greedy
    assert model.session(max_output_tokens=16, temperature=2.0, seed=7).ask("x") == text
    assert model.session(n_context=64).n_context == 64
    stop = greedy[2:4]
    stopped = model.session(max_output_tokens=16, greedy=True, stop=[stop])
    assert stopped.ask("x") == greedy[: greedy.index(stop)]
    other = model.session(max_output_tokens=16, greedy=True, n_threads=1, no_speculation=True)
    assert other.ask("x") == greedy


def test_draft_model(model, model_path):
    plain = model.session(max_output_tokens=16, temperature=1.0, seed=7).ask("x")
    with quip.Model(model_path) as draft:
        session = model.session(max_output_tokens=16, temperature=1.0, seed=7, draft=draft)
        assert model.plan(draft=draft).kv_bytes == 2 * model.plan().kv_bytes
    assert session.ask("x") == plain  # the session keeps what it needs of the draft model
    assert 0 <= session.result.n_draft_right <= session.result.n_draft_tokens
    session.set_options(seed=8)
    with pytest.raises(TypeError, match="draft must be a quip.Model"):
        model.session(draft="small.bin")


def test_default_sampling(model):
    """What is left out is the default that model.info has; 0 counts if it is said."""

    def draw(**options):
        return model.session(max_output_tokens=16, seed=7, **options).ask("x")

    info = model.info
    names = ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "penalty_window"]
    defaults = {name: getattr(info, "default_" + name) for name in names}
    assert not info.has_sampling and info.default_temperature > 0
    assert draw() == draw(**defaults)
    assert draw() != draw(greedy=True)
    none = {"top_k": 0, "top_p": 0, "min_p": 0, "repeat_penalty": 0, "no_repeat_ngram": 0}
    assert draw(temperature=1) != draw(temperature=1, **none)
    assert draw(temperature=0, **none) == draw(greedy=True)


def test_seeds(model):
    def draw(**seed):
        session = model.session(max_output_tokens=16, temperature=2.0, **seed)
        return session.ask("x"), session.result.seed

    assert draw(seed=0) == draw(seed=0) and draw(seed=0)[1] == 0
    text, seed = draw()
    assert draw(seed=seed) == (text, seed)


def test_changed_options(model):
    session = model.session(max_output_tokens=16, temperature=0, system="be brief")
    greedy = session.ask("x")
    session.undo()
    assert session.position == 0
    session.set_options(temperature=2.0, seed=7)
    drawn = session.say("x")
    assert drawn.text() != greedy and drawn.result.seed == 7
    session.undo()
    session.set_options(max_output_tokens=4)
    short = session.say("x")
    assert short.text() and short.tokens == drawn.tokens[:4] and short.result.seed == 7
    with pytest.raises(quip.ArgumentError, match="n_context"):
        session.set_options(n_context=64)
    with pytest.raises(quip.ArgumentError, match="system"):
        session.set_options(system="be long")


def test_tokens_of_an_answer(model):
    session = model.session(max_output_tokens=16, greedy=True)
    answer = session.say("x")
    text = answer.text()
    assert len(answer.tokens) == session.result.n_output_tokens
    assert text.strip() in model.detokenize(answer.tokens)


@pytest.mark.parametrize(
    "options, kind, word",
    [
        ({"context": 5}, TypeError, "unknown option context"),
        ({"reserved": 5}, TypeError, "reserved"),
        ({"n_context": 2**32 + 5}, OverflowError, "n_context"),
        ({"n_context": "5"}, TypeError, "n_context"),
        ({"n_context": -1}, quip.ArgumentError, "n_context"),
        ({"temperature": -1.0}, quip.ArgumentError, "temperature"),
        ({"n_context": 1.5}, TypeError, "n_context"),
        ({"top_k": np.int64(2**40)}, OverflowError, "top_k"),
        ({"no_speculation": "no"}, TypeError, "no_speculation"),
        ({"logit_bias": {-1: 1.0}}, quip.ArgumentError, r"logit_bias\[0\]"),
        ({"logit_bias": {"a": 1.0}}, TypeError, "integer"),
        ({"repeat_penalty": -1.0}, quip.ArgumentError, "repeat_penalty"),
        ({"stop": "text"}, TypeError, "stop"),
        ({"stop": [1]}, TypeError, "stop"),
        ({"stop": ["a\0b"]}, ValueError, "NUL"),
        ({"chat_template": "absent"}, quip.ArgumentError, "absent"),
        ({"system": "a\0b"}, ValueError, "system"),
        ({"system": 3}, TypeError, "system"),
    ],
)
def test_wrong_options_are_named(model, options, kind, word):
    with pytest.raises(kind, match=word):
        model.session(**options)


def test_reasons_print_their_names():
    assert [str(reason) for reason in quip.FinishReason][:3] == ["NONE", "STOP", "LENGTH"]
    assert f"{quip.FinishReason.STOP}" == "STOP"


def test_penalties(model):
    plain = model.session(max_output_tokens=16, greedy=True).say("x")
    greedy = "".join(plain)
    first = plain.tokens[0]
    never = {first: -float("inf")}
    answer = model.session(max_output_tokens=16, greedy=True, logit_bias=never).say("x")
    assert "".join(answer) != greedy
    assert first not in answer.tokens
    once = {"no_repeat_ngram": 1, "penalty_window": -1}
    answer = model.session(max_output_tokens=16, greedy=True, **once).say("x")
    assert "".join(answer)
    assert len(set(answer.tokens)) == len(answer.tokens)


def test_options_are_those_of_the_header():
    fields = {field[0] for field in _abi.quip_session_options._fields_}
    assert quip.SessionOptions.__annotations__.keys() == fields - {
        "n_stop",
        "n_logit_bias",
        "has_seed",
        "reserved",
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.ask(None),
        lambda session: session.append(quip.Role.USER, b"bytes"),
        lambda session: session.rewind("2"),
        lambda session: session.prefill([1.5]),
        lambda session: session.set_adapter("path"),
    ],
)
def test_wrong_types_are_errors(session, call):
    with pytest.raises(TypeError):
        call(session)
    with pytest.raises(ValueError, match="Role"):
        session.append("user", "x")


def test_context_full(model):
    with model.session(n_context=32, greedy=True) as session:
        with pytest.raises(quip.ContextFullError, match="32"):
            session.say(LONG)
        assert session.position == 0
        answer = session.say("one")
        answer.text()
        assert answer.result.finish_reason is quip.FinishReason.CONTEXT


def test_logits(model, session):
    ids = model.tokenize("a light and the hen")
    rows = session.prefill_logits(ids)
    assert rows.shape == (len(ids), 300) and rows.dtype == np.float32
    assert np.array_equal(session.logits(), rows[-1])
    other = model.session()
    assert other.logits() is None
    other.prefill(ids[:3])
    other.prefill(ids[3:])
    assert np.array_equal(other.logits(), rows[-1])
    assert session.position == other.position == len(ids)


def test_clone_and_rewind(model):
    session = model.session(max_output_tokens=12, temperature=1.5, seed=3)
    session.append(quip.Role.USER, "one")
    copy = session.clone()
    assert copy.answer().text() == session.answer().text()
    copy.rewind(1)
    assert copy.position == 1 and copy.logits() is None
    with pytest.raises(quip.ArgumentError):
        copy.rewind(1000)


def test_closed_session_says_so(session):
    session.close()
    session.close()
    session.cancel()
    with pytest.raises(ValueError, match="closed"):
        session.say("x")


def test_cancel_from_another_thread(model):
    session = model.session(n_context=8192)
    threading.Timer(0.1, session.cancel).start()
    with pytest.raises(quip.CancelledError):
        while True:  # the timer has no effect between two calls
            session.append(quip.Role.NONE, LONG)
            session.rewind(0)


def test_one_thread_at_a_time_and_the_gil_is_free(model):
    session = model.session(n_context=8192)

    def work():
        with pytest.raises(quip.CancelledError):
            session.append(quip.Role.NONE, LONG)

    thread = threading.Thread(target=work)
    thread.start()
    while session._user is None:  # this loop runs while the model runs
        time.sleep(0.001)
    with pytest.raises(RuntimeError, match="another thread"):
        session.position
    while thread.is_alive():
        session.cancel()
        thread.join(0.02)


def test_close_ends_what_runs(model):
    session = model.session(n_context=8192)
    caught = []

    def work():
        try:
            while True:
                session.append(quip.Role.NONE, LONG)
                session.rewind(0)
        except (quip.CancelledError, ValueError) as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)
    session.close()
    thread.join(20)
    assert not thread.is_alive() and caught


def test_a_text_cut_by_close_is_not_an_answer(model):
    session = model.session(n_context=4096, greedy=True)  # drawn tokens may end the answer early
    answer, texts = session.say("one"), []
    next(answer)

    def work():
        with pytest.raises((quip.CancelledError, ValueError), match="closed"):
            texts.append(answer.text())

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive() and session._user != thread.ident:  # during a call, not between two
        pass
    session.close()
    thread.join(20)
    assert not thread.is_alive() and not texts


def test_an_error_keeps_no_session_alive(model):
    """Memory of a session is freed at once, not when the garbage collector runs."""
    session = model.session(n_context=32)
    closed = []
    handle, close = session._handle, session._handle._close
    handle._close = lambda h: (closed.append(True), close(h))
    del handle
    gc.disable()
    try:
        with pytest.raises(quip.ContextFullError):
            session.ask(LONG)
        del session
        assert closed
    finally:
        gc.enable()


def test_a_session_may_be_freed_in_a_callback(model):
    """prefill_logits calls back into Python, where the garbage collector may find a session."""
    for _ in range(3):
        dropped = model.session()
        dropped.append(quip.Role.NONE, "x")
        dropped.myself = dropped
    del dropped
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        assert model.session().prefill_logits([5] * 40).shape == (40, 300)
    finally:
        gc.set_threshold(*before)


def test_a_fork_opens_its_own(model):
    session = model.session(max_output_tokens=8, greedy=True)
    text = session.ask("x")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(RuntimeError, match="parent"):
                session.ask("x")
            session.close()  # does not wait for the threads of the parent
            del session
            code = 0 if model.session(max_output_tokens=8, greedy=True).ask("x") == text else 2
        finally:
            os._exit(code)
    for _ in range(2000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
    assert ended and status == 0
    session.rewind(0)
    assert session.ask("x") == text


def test_interrupt(model):
    session = model.session(n_context=8192)
    session.append(quip.Role.NONE, "a")
    before = session.position
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            session.append(quip.Role.NONE, LONG)
            session.rewind(before)
    session.rewind(before)
    assert session.ask("b") is not None


def test_interrupts_leave_no_mark(model):
    """After Ctrl-C at any point, any thread can use the session."""
    session = model.session()
    for _ in range(200):
        timer = threading.Timer(0.002, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                session.position
        assert session._user is None
    session.append(quip.Role.NONE, "x")  # runs on another thread
    session.close()


def test_asyncio(model):
    async def two_at_once():
        async def talk(prompt):
            session = model.session(max_output_tokens=12, greedy=True)
            return [piece async for piece in session.say_async(prompt)]

        return await asyncio.gather(talk("one"), talk("two"))

    one, two = asyncio.run(two_at_once())
    assert "".join(one) == model.session(max_output_tokens=12, greedy=True).ask("one")
    assert "".join(two) == model.session(max_output_tokens=12, greedy=True).ask("two")


def test_asyncio_cancel(model):
    async def main():
        session = model.session(n_context=8192)
        task = asyncio.ensure_future(session.ask_async(LONG))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        session.rewind(0)  # the session is not in use
        return await model.session(max_output_tokens=4, greedy=True).ask_async("x")

    assert asyncio.run(main())


def test_asyncio_takes_back_what_has_not_begun(model):
    """Cancelling a task does not wait for a thread of the loop to be free."""

    async def main():
        release, executor = threading.Event(), concurrent.futures.ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(executor)
        busy = asyncio.get_running_loop().run_in_executor(None, release.wait)
        session = model.session(max_output_tokens=4, greedy=True)
        try:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.ask_async("x"), 0.1)
            assert not busy.done()
        finally:
            release.set()
        await busy
        assert session.position == 0
        assert await session.ask_async("x") == model.session(max_output_tokens=4, greedy=True).ask("x")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_leaving_an_async_loop_ends_the_work(model):
    async def main():
        session = model.session(n_context=4096, greedy=True)
        async for _ in session.say_async("one"):
            break
        position = session.position
        await asyncio.sleep(0.05)
        assert session.position == position
        session.set_options(max_output_tokens=4)
        assert await session.ask_async("two")

    asyncio.run(main())


def test_interrupt_of_asyncio(model):
    """Ctrl-C during `await` ends the work, and the session can be used again."""
    session = model.session(n_context=8192, greedy=True)

    async def main():
        while True:
            await session.ask_async(LONG)
            session.rewind(0)

    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    session.rewind(0)
    session.set_options(max_output_tokens=4)
    assert session.ask("x") == model.session(n_context=8192, max_output_tokens=4, greedy=True).ask("x")


def test_asyncio_errors(model):
    async def main():
        with pytest.raises(quip.ContextFullError):
            await model.session(n_context=16).ask_async(LONG)

    asyncio.run(main())
