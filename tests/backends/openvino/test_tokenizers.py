"""Tokenizers as OpenVINO models: the same tokens, the same bytes, and a word where there is none."""

from __future__ import annotations

import hashlib

import pytest

from qdx.backends.openvino import tokenizers
from qdx.backends.openvino.backend import OpenVinoBackend
from tests.support.tiny.vocabularies import clip_tokenizer, t5_tokenizer


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    return tmp_path


def digest(bundle):
    files = sorted((bundle / "tokenizer").glob("openvino_tokenizer.*"))
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


@pytest.mark.parametrize("make", [clip_tokenizer, t5_tokenizer])
def test_the_model_makes_the_same_tokens(bundle, make):
    import openvino

    pytest.importorskip("openvino_tokenizers")
    tokenizer = make()
    notes = OpenVinoBackend().add_helpers({"tokenizer": tokenizer}, bundle)
    model = openvino.compile_model(bundle / "tokenizer" / "openvino_tokenizer.xml", "CPU")

    assert notes == ()
    sentence = "two boats in the blue sea, at night?"
    assert model([sentence])["input_ids"][0].tolist() == tokenizer(sentence)["input_ids"]


def test_the_same_tokenizer_makes_the_same_bytes(bundle):
    pytest.importorskip("openvino_tokenizers")
    seen = []
    for _ in range(2):
        tokenizers.add_tokenizers({"tokenizer": clip_tokenizer()}, bundle)
        seen.append(digest(bundle))

    assert seen[0] == seen[1]
    assert [name for name, _ in seen[0]] == ["openvino_tokenizer.bin", "openvino_tokenizer.xml"]


def test_a_missing_converter_is_reported(bundle, monkeypatch):
    monkeypatch.setattr(tokenizers, "find_spec", lambda name: None)
    (note,) = tokenizers.add_tokenizers({"tokenizer": clip_tokenizer()}, bundle)

    assert "openvino-tokenizers is not installed" in note
    assert 'pip install "qdx[openvino]"' in note
    assert digest(bundle) == []


def test_without_tokenizers_there_is_nothing_to_report(bundle, monkeypatch):
    monkeypatch.setattr(tokenizers, "find_spec", lambda name: None)

    assert tokenizers.add_tokenizers({}, bundle) == ()


def test_a_tokenizer_that_would_make_other_tokens_is_left_out(bundle):
    pytest.importorskip("openvino_tokenizers")
    tokenizer = clip_tokenizer()
    altered = type(
        "Altered", (type(tokenizer),), {"__call__": lambda self, text, **_: {"input_ids": [0]}}
    )
    tokenizer.__class__ = altered
    (note,) = tokenizers.add_tokenizers({"tokenizer": tokenizer}, bundle)

    assert note.startswith("tokenizer: no openvino_tokenizer.xml")
    assert "other tokens" in note
    assert digest(bundle) == []
