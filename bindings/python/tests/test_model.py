import copy
import ctypes
import io
import os
import pathlib
import pickle

import pytest

import quip
from quip import _abi, errors
from quip._library import lib


def test_info(model, model_path):
    info = model.info
    assert (info.architecture, info.weights) == ("llama", "int8")
    assert (info.n_layers, info.d_model, info.head_dim, info.vocab_size) == (2, 64, 16, 300)
    assert info.file_bytes == model_path.stat().st_size
    assert "llama" in repr(model)
    assert quip.__version__.count(".") == 2


def test_tokens(model):
    for text in ["light", "", "\0and\n", "égg🥚", "x" * 1000]:
        assert model.detokenize(model.tokenize(text)) == text
    assert model.tokenize("\u20ac" * 40) != []
    assert model.detokenize([]) == ""
    with pytest.raises(quip.ArgumentError):
        model.session().prefill([300])
    with pytest.raises(OverflowError, match="4294967301"):
        model.detokenize([2**32 + 5])


def test_other_ways_to_open(model, model_path):
    text = model.session(max_output_tokens=8, greedy=True).ask("x")
    assert quip.Model(os.fspath(model_path), no_mmap=True).session(max_output_tokens=8, greedy=True).ask("x") == text
    with open(model_path, "rb") as file:
        opened = quip.Model.from_file(file, "a name")
    assert opened.session(max_output_tokens=8, greedy=True).ask("x") == text
    data = bytearray(model_path.read_bytes())
    session = quip.Model.from_bytes(data).session(max_output_tokens=8, greedy=True)
    assert session.ask("x") == text  # the model is closed; the session keeps what it needs


def test_a_file_that_changes(model_path, tmp_path):
    path, data = tmp_path / "changing.bin", model_path.read_bytes()
    path.write_bytes(data)
    mapped, copied = quip.Model(path), quip.Model(path, no_mmap=True)
    session = mapped.session(max_output_tokens=8, greedy=True)
    text = session.ask("x")
    os.truncate(path, 5000)
    for again in (session, mapped.session()):
        with pytest.raises(quip.IOError, match="changing.bin: was truncated or overwritten"):
            again.ask("x")
    assert copied.session(max_output_tokens=8, greedy=True).ask("x") == text


@pytest.mark.parametrize("change", [os.remove, lambda path: os.rename(path, f"{path}.old")])
def test_a_file_that_is_replaced(model_path, tmp_path, change):
    """An update by a rename is safe: open models keep the old file, and the next one is the new."""
    path = tmp_path / "model.bin"
    path.write_bytes(model_path.read_bytes())
    session = quip.Model(path).session(max_output_tokens=8, greedy=True)
    text = session.ask("x")
    change(path)
    path.write_bytes(b"a newer model")
    session.rewind(0)
    assert session.ask("x") == text
    with pytest.raises(quip.FormatError):
        quip.Model(path)


def test_bytes_are_free_afterwards(model_path):
    data = bytearray(model_path.read_bytes())
    model = quip.Model.from_bytes(data)
    session = model.session()
    model.close()
    with pytest.raises(BufferError):
        data.append(0)
    session.close()
    data.append(0)


def test_source_that_fails(model_path):
    class Broken(io.BytesIO):
        def read(self, n=-1):
            raise ConnectionError("the line is down")

    with pytest.raises(ConnectionError, match="the line is down"):
        quip.Model.from_file(Broken(model_path.read_bytes()))
    with pytest.raises(quip.Error, match="a name"):
        quip.Model.from_file(io.BytesIO(b"junk" * 1000), "a name")
    with pytest.raises(quip.FormatError, match="begins with .nothing.;"):
        quip.Model.from_bytes(b"")
    with pytest.raises(quip.FormatError, match="begins with 61 62;"):
        quip.Model.from_bytes(b"ab")
    with pytest.raises(quip.FormatError, match="web page"):
        quip.Model.from_bytes(b"<!DOCTYPE html><html>")
    with pytest.raises(TypeError, match="bytes"), open(__file__) as text:
        quip.Model.from_file(text)


def test_errors_can_be_sent_to_a_process():
    for kind in (quip.ContextFullError, quip.IOError, quip.MemoryError, quip.CancelledError):
        error = pickle.loads(pickle.dumps(kind("why")))
        assert type(error) is kind and str(error) == "why"


def test_errors_are_named_and_built_in(tmp_path):
    with pytest.raises(quip.IOError, match="absent.bin") as caught:
        quip.Model(tmp_path / "absent.bin")
    assert isinstance(caught.value, OSError) and caught.value.status == "io"
    with pytest.raises(quip.IOError, match="~/absent.bin: .*expanduser"):
        quip.Model("~/absent.bin")
    (tmp_path / "junk.bin").write_bytes(b"junk" * 1000)
    with pytest.raises(quip.FormatError, match="junk.bin") as caught:
        quip.Model(tmp_path / "junk.bin")
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, quip.Error)
    with pytest.raises(ValueError, match="NUL"):
        quip.Model("a\0b")


def test_every_status_has_an_exception():
    names = [n for n in vars(_abi) if n.startswith("QUIP_E_")]
    for name in names:
        status = lib.quip_status_name(getattr(_abi, name)).decode()
        kind = errors.kind_of(status)
        assert kind is not quip.Error and kind.status == status
        assert getattr(quip, kind.__name__) is kind


def test_closed_model_says_so(model_path):
    model = quip.Model(model_path)
    session = model.session(max_output_tokens=4, greedy=True)
    model.close()
    model.close()
    assert "closed" in repr(model)
    with pytest.raises(ValueError, match="closed"):
        model.tokenize("x")
    assert session.prefill_logits([5]).shape == (1, model.info.vocab_size)
    session.rewind(0)
    assert session.ask("still here")


def test_a_call_that_runs_keeps_what_is_closed(model_path):
    model = quip.Model(model_path)
    handle = model.handle  # like a call of another thread
    model.close()
    info = _abi.quip_model_info(struct_size=ctypes.sizeof(_abi.quip_model_info))
    assert lib.quip_model_get_info(handle, info, None) == _abi.QUIP_OK
    assert info.architecture == b"llama"


@pytest.mark.parametrize("double", [copy.copy, copy.deepcopy, pickle.dumps])
def test_one_of_a_kind(model, adapter_path, double):
    for thing in (model, model.session(), model.adapter(adapter_path)):
        with pytest.raises(TypeError, match=f"quip.{type(thing).__name__}"):
            double(thing)


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_model_options(model_path, backend):
    with quip.Model(model_path, backend=backend, n_threads=3, background=True) as model:
        assert (model.info.backend, model.info.n_threads) == ("cpu", 3)
        assert (model.info.backend_reason is None) == (backend != "auto")
        assert model.session(n_threads=1).n_threads == 1
        assert model.session(n_threads=9).n_threads == 3


def test_gpu(model_path):
    """The model runs on a GPU, or a sentence says what is missing."""
    try:
        with quip.Model(model_path, backend="gpu") as model:
            assert model.info.backend == "gpu"
    except quip.UnsupportedError as error:
        assert "gpu" in str(error).lower()


@pytest.mark.parametrize(
    "options, kind, word",
    [
        ({"backend": "tpu"}, ValueError, "auto, cpu, gpu"),
        ({"n_threads": 257}, quip.ArgumentError, "n_threads is 257; must be 0 to 256"),
        ({"absent": True}, TypeError, "unknown option absent"),
    ],
)
def test_wrong_model_options(model_path, options, kind, word):
    with pytest.raises(kind, match=word):
        quip.Model(model_path, **options)


def test_plan(model_path):
    small, large = (quip.plan_memory(model_path, n_context=n) for n in (64, 1024))
    assert (small.n_context, large.n_context) == (64, 1024)
    assert small.file_bytes == model_path.stat().st_size
    assert large.kv_bytes > small.kv_bytes
    with open(model_path, "rb") as file:
        header = io.BytesIO(file.read())
    assert quip.plan_memory(header, n_context=64) == small
    with quip.Model(model_path) as model:
        assert model.plan(n_context=64).kv_bytes == small.kv_bytes


def test_typed():
    assert (pathlib.Path(quip.__file__).parent / "py.typed").exists()
