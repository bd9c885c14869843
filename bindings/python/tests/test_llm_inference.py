import gc
import threading

import pytest

import quip
from quip.genai import (
    Backend,
    GraphOptions,
    LlmInference,
    LlmInferenceOptions,
    LlmInferenceSession,
    LlmInferenceSessionOptions,
    PromptTemplates,
)


@pytest.fixture
def llm(model_path):
    with LlmInference.create_from_options(LlmInferenceOptions(model_path, max_tokens=64)) as llm:
        yield llm


def test_generate(llm, model_path):
    first = llm.generate_response("one")
    assert first and first == llm.generate_response("one")  # each call has its own session
    with LlmInference.create_from_model_path(model_path) as other:
        assert other.options.max_tokens == 512
        assert other.generate_response("one").startswith(first[:4])
    assert llm.size_in_tokens("one") == len(llm.model.tokenize("one"))


def test_generate_async(llm):
    heard, threads = [], set()

    def listener(partial, done):
        heard.append((partial, done))
        threads.add(threading.current_thread())

    text = llm.generate_response_async("one", listener).result(60)
    assert heard[-1] == ("", True)
    assert [done for _, done in heard].count(True) == 1
    assert "".join(partial for partial, _ in heard) == text == llm.generate_response("one")
    assert threads != {threading.current_thread()}
    assert llm.generate_response_async("one").result(60) == text


def test_async_does_not_wait_for_the_prompt(llm):
    future = llm.generate_response_async("one two three " * 50)  # an error is in the future, too
    with pytest.raises(quip.ContextFullError):
        future.result(60)
    assert llm.generate_response_async("").result(60) == llm.generate_response("")


def test_session_is_a_conversation(llm):
    with LlmInferenceSession.create_from_options(llm) as session:
        session.add_query_chunk("one ")
        session.add_query_chunk("two")
        before = session.session.position
        with session.clone_session() as copy:
            assert copy.generate_response() == session.generate_response()
        assert session.session.position > before
        assert session.size_in_tokens("one") == llm.size_in_tokens("one")
        assert session.get_session_options() == LlmInferenceSessionOptions()


def test_one_answer_at_a_time(llm):
    session = LlmInferenceSession(llm, LlmInferenceSessionOptions(temperature=0.0))
    session.add_query_chunk("one")
    errors, ready = [], threading.Event()

    def listener(partial, done):
        if not done and not errors:
            for call in (
                session.generate_response,
                session.generate_response_async,
                session.clone_session,
                lambda: session.add_query_chunk("x"),
            ):
                with pytest.raises(RuntimeError, match="Wait for done=true") as caught:
                    call()
                errors.append(caught.value)
        if done:
            session.size_in_tokens("two")
            session.clone_session().close()  # the session can be used again
            ready.set()

    session.generate_response_async(listener).result(60)
    assert ready.is_set() and len(errors) == 4


def test_cancel(model_path):
    llm = LlmInference(LlmInferenceOptions(model_path, max_tokens=4096))
    session = LlmInferenceSession(llm)
    session.add_query_chunk("one")

    def listener(partial, done):
        session.cancel_generate_response_async()

    text = session.generate_response_async(listener).result(60)
    assert len(text) < 200
    assert session.result.finish_reason is quip.FinishReason.CANCELLED


def test_cancel_before_the_answer_begins(model_path):
    llm = LlmInference(LlmInferenceOptions(model_path, max_tokens=4096))
    options = LlmInferenceSessionOptions(prompt_templates=PromptTemplates("<u>", "</u>", "<m>", "</m>"))
    session = LlmInferenceSession(llm, options)
    session.add_query_chunk("one")
    begin = session._begin_answer

    def cancel_and_begin():
        session.cancel_generate_response_async()  # as the caller's thread might do now
        return begin()

    session._begin_answer = cancel_and_begin
    assert session.generate_response_async().result(60) == ""
    assert session.result.finish_reason is quip.FinishReason.CANCELLED
    session._begin_answer = begin
    session.add_query_chunk("two")  # the next answer is not cancelled
    heard = threading.Event()
    future = session.generate_response_async(lambda partial, done: heard.set())
    assert heard.wait(60)
    session.cancel_generate_response_async()
    assert future.result(60)


def test_listener_that_fails_ends_the_work(llm):
    def listener(partial, done):
        raise KeyError("mine")

    future = llm.generate_response_async("one", listener)
    with pytest.raises(KeyError, match="mine"):
        future.result(60)
    assert llm.generate_response_async("one").result(60)


def test_listeners_hear_of_every_end(llm):
    heard, errors, ended = [], [], threading.Event()

    def listener(partial, done):
        heard.append((partial, done))
        if done:
            ended.set()

    llm.generate_response_async("one two three " * 50, listener, errors.append)
    assert ended.wait(60)
    assert heard == [("", True)]
    assert [type(error) for error in errors] == [quip.ContextFullError]
    session = LlmInferenceSession(llm)
    session.add_query_chunk("one")
    ended.clear()

    def fails(partial, done):
        listener(partial, done)
        if not done:
            raise KeyError("mine")

    session.generate_response_async(fails, errors.append)
    assert ended.wait(60)
    assert [done for _, done in heard] == [True, False, True]
    assert isinstance(errors[1], KeyError)


def test_an_error_that_nobody_hears_is_printed(llm, monkeypatch):
    printed, ended = [], threading.Event()

    def hook(what):
        printed.append(what.exc_type)
        ended.set()

    monkeypatch.setattr(threading, "excepthook", hook)
    long = "one two three " * 50
    gc.disable()  # the future is not in a cycle, so it ends with its last reference
    try:
        llm.generate_response_async(long)
        assert ended.wait(60)
    finally:
        gc.enable()
    future = llm.generate_response_async(long)
    with pytest.raises(quip.ContextFullError):
        future.result(60)
    ended.clear()
    future = llm.generate_response_async(long, None, lambda error: ended.set())
    assert ended.wait(60)
    del future
    assert printed == [quip.ContextFullError]


def test_close_ends_the_work_with_an_error(model_path):
    llm = LlmInference(LlmInferenceOptions(model_path, max_tokens=4096))
    heard, begun, closing = [], threading.Event(), threading.Event()

    def listener(partial, done):
        heard.append(done)
        begun.set()
        closing.wait(60)  # the answer must not end before

    future = llm.generate_response_async("one", listener)
    assert begun.wait(60)
    closing.set()
    llm.close()
    with pytest.raises((quip.CancelledError, ValueError), match="closed"):
        future.result(60)
    assert heard[-1] is True and heard.count(True) == 1


def test_seeds(llm):
    def draw(seed):
        options = LlmInferenceSessionOptions(temperature=1.0, random_seed=seed)
        with LlmInferenceSession(llm, options) as session:
            session.add_query_chunk("one")
            return session.generate_response(), session.result.seed

    assert draw(0) == draw(0) and draw(5) == draw(5)
    assert draw(0)[0] != draw(5)[0]
    text, seed = draw(None)
    assert draw(seed)[0] == text


def test_greedy(llm, model):
    def answer(**options):
        with LlmInferenceSession(llm, LlmInferenceSessionOptions(**options)) as session:
            session.add_query_chunk("one")
            return session.generate_response()

    greedy = model.session(n_context=64, no_template=True, greedy=True).ask("one").lstrip()
    assert answer(temperature=0.0) == greedy
    assert answer(top_k=1) == greedy
    assert answer(top_p=0.0) == greedy


def test_only_the_options_of_mediapipe_count(llm, model):
    with LlmInferenceSession(llm) as session:
        session.add_query_chunk("one")
        text = session.generate_response()
    none = {"min_p": 0, "repeat_penalty": 1, "no_repeat_ngram": 0}
    options = {"temperature": 0.8, "top_k": 40, "top_p": 1, "seed": 0, "n_context": 64, **none}
    assert model.session(no_template=True, **options).ask("one").lstrip() == text


def test_prompt_templates(model_path, model):
    llm = LlmInference(LlmInferenceOptions(model_path, max_tokens=400))
    templates = PromptTemplates("<u>", "</u>", "<m>", "</m>")
    options = LlmInferenceSessionOptions(temperature=0.0, prompt_templates=templates)
    session = LlmInferenceSession(llm, options)
    session.add_query_chunk("one")
    session.generate_response_async(
        lambda partial, done: done or session.cancel_generate_response_async()
    ).result(60)
    session.add_query_chunk("two")
    other = model.session(n_context=400, no_template=True, greedy=True)
    for text in ["<u>", "one", "</u><m>"]:
        other.append(quip.Role.NONE, text)
    answer = other.answer()
    next(answer)
    while other.position < session.session.position - len("</m><u>two"):
        next(answer)
    for text in ["</m><u>", "two"]:
        other.append(quip.Role.NONE, text)
    assert other.position == session.session.position
    assert other.ask("x") == session.session.ask("x")


def test_options_change_between_turns(llm):
    session = LlmInferenceSession(llm)
    session.update_session_options(temperature=0.0, top_k=3)
    assert session.get_session_options().top_k == 3
    for name in ("lora_path", "prompt_templates"):
        with pytest.raises(quip.ArgumentError, match=name):
            session.update_session_options(**{name: "x"})
    session.add_query_chunk("one")
    session.update_session_options(top_k=4, random_seed=9)
    assert session.generate_response()
    assert session.result.seed == 9
    with pytest.raises(quip.ArgumentError, match="top_k is 41"):
        session.update_session_options(top_k=41)
    assert session.get_session_options().top_k == 4


def test_what_is_refused(llm, model_path):
    for wrong in [{"max_num_images": 1}, {"vision_model_options": {}, "max_num_images": 2}]:
        with pytest.raises(quip.UnsupportedError, match="images"):
            LlmInference(LlmInferenceOptions(model_path, **wrong))
    with pytest.raises(quip.ArgumentError, match="max_tokens"):
        LlmInference(LlmInferenceOptions(model_path, max_tokens=0))
    for top_k in (0, 41):
        with pytest.raises(quip.ArgumentError, match="top_k"):
            LlmInferenceSession(llm, LlmInferenceSessionOptions(top_k=top_k))
    with pytest.raises(quip.UnsupportedError, match="sound"):
        options = GraphOptions(enable_audio_modality=True)
        LlmInferenceSession(llm, LlmInferenceSessionOptions(graph_options=options))
    with pytest.raises(quip.UnsupportedError):
        LlmInferenceSession(llm).add_image(b"")
    with pytest.raises(quip.ContextFullError):
        llm.generate_response("one two three " * 50)


def test_preferred_backend_without_a_gpu(model_path, monkeypatch):
    monkeypatch.setenv("QUIP_GPU_LIBRARY", "/no-such-file")
    with pytest.warns(UserWarning, match="gpu.*the CPU is used"):
        llm = LlmInference(LlmInferenceOptions(model_path, preferred_backend=Backend.GPU))
    with llm:
        assert llm.model.info.backend == "cpu"
        assert llm.generate_response("one")
