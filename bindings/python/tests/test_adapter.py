"""LoRA adapters of sessions. tests/adapter.c checks their numbers."""

import numpy as np
import pytest

import quip
from conftest import write_adapter
from quip.genai import LlmInference, LlmInferenceOptions, LlmInferenceSession
from quip.genai import LlmInferenceSessionOptions


def logits(model, **options):
    session = model.session(**options)
    session.prefill(range(5, 25))
    return session.logits()


def test_sessions_with_and_without(model_path, adapter_path):
    with quip.Model(model_path) as model, model.adapter(adapter_path) as adapter:
        plain, tuned = logits(model), logits(model, adapter=adapter)
        half = logits(model, adapter=adapter, adapter_scale=0.5)
        assert not np.array_equal(plain, tuned) and not np.array_equal(half, tuned)
        assert np.array_equal(plain, logits(model))

        session = model.session()
        session.prefill(range(5, 24))
        for expected, change in [(tuned, (adapter,)), (half, (adapter, 0.5)), (plain, (None,))]:
            session.set_adapter(*change)
            session.rewind(19)
            session.prefill([24])
            assert np.array_equal(session.logits(), expected)
        session.set_adapter(adapter, 0)
        session.rewind(19)
        session.prefill([24])
        assert np.array_equal(session.logits(), plain)
        session.set_adapter(adapter)
    # both are closed; the session keeps what it needs
    session.rewind(19)
    session.prefill([24])
    assert np.array_equal(session.logits(), tuned)


def test_errors(model_path, adapter_path, tmp_path):
    with quip.Model(model_path) as model, quip.Model(model_path) as other:
        with pytest.raises(TypeError, match="quip.Adapter"):
            model.session(adapter=str(adapter_path))
        with pytest.raises(quip.Error, match="absent"):
            model.adapter("absent")
        adapter = model.adapter(adapter_path)
        with pytest.raises(quip.ArgumentError):
            other.session(adapter=adapter)  # for another model
        adapter.close()
        with pytest.raises(ValueError, match="closed"):
            model.session(adapter=adapter)
        with pytest.raises(quip.Error, match="q_proj"):
            model.adapter(write_adapter(tmp_path / "wide", d_model=128))


def test_lora_path(model_path, adapter_path):
    def answer(lora_path):
        options = LlmInferenceSessionOptions(temperature=0.0, lora_path=lora_path)
        with LlmInferenceSession.create_from_options(llm, options) as session:
            session.add_query_chunk("the hen and the light of day")
            return session.generate_response()

    with LlmInference.create_from_options(LlmInferenceOptions(model_path, max_tokens=64)) as llm:
        plain, tuned = answer(None), answer(adapter_path)
        assert tuned == answer(adapter_path)
        model = llm.model
        expected = [
            model.session(n_context=64, adapter=adapter, greedy=True)
            for adapter in (None, model.adapter(adapter_path))
        ]
        role = quip.Role.USER if model.info.has_template else quip.Role.NONE
        for session, text in zip(expected, (plain, tuned)):
            session.append(role, "the hen and the light of day")
            assert session.answer().text().lstrip() == text
