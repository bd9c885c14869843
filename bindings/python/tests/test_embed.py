"""Model.embed: embeddings of texts and of token ids. The test model generates text, so a pooling is
necessary; tests/embed.c compares embedding models with the reference."""

import numpy as np
import pytest

import quip


def test_embed(model_path):
    with quip.Model(model_path) as model:
        assert not model.info.is_embedding and model.prompts == []
        width = model.info.n_embedding
        texts = ["one", "two three", "one"] * 100
        vectors = model.embed(texts, pooling="last")
        assert vectors.shape == (300, width) and vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert (vectors[0] == vectors[2]).all() and (vectors[0] != vectors[1]).any()
        one = model.embed("one", pooling="last")
        assert one.shape == (width,) and (one == vectors[0]).all()
        assert model.embed([], pooling="mean").shape == (0, width)


def test_ids_and_options(model_path):
    with quip.Model(model_path) as model:
        begin = [model.info.bos] if model.info.bos >= 0 else []
        ids = begin + model.tokenize("one two", with_special=True)
        text = model.embed("one two", pooling="mean")
        assert (model.embed([ids], pooling="mean")[0] == text).all()
        assert (model.embed("two", pooling="mean", prefix="one ") == text).all()
        short = model.embed("one two", pooling="mean", n_dimensions=4, no_normalize=True)
        whole = model.embed("one two", pooling="mean", no_normalize=True)
        assert (short == whole[:4]).all()


def test_errors(model_path):
    with quip.Model(model_path) as model:
        with pytest.raises(quip.UnsupportedError, match="not an embedding model"):
            model.embed("one")
        with pytest.raises(ValueError, match="pooling is 'max'"):
            model.embed("one", pooling="max")
        with pytest.raises(quip.ArgumentError, match='no prompt "query"'):
            model.embed("one", pooling="mean", prompt="query")
        with pytest.raises(TypeError, match="unknown option width"):
            model.embed("one", width=3)
        with pytest.raises(quip.ArgumentError, match="0 tokens"):
            model.embed([[]], pooling="mean")
        with pytest.raises(TypeError, match="text is None|None"):
            model.embed([None], pooling="mean")
