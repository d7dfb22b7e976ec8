"""The small files of a bundle: tokenizers that older readers open as well."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from qdx.bundle.companions import copy_helpers
from qdx.exporter.capture.folder import read_pipeline_folder
from tests.support.tiny.vocabularies import clip_tokenizer, qwen_tokenizer, t5_tokenizer

SENTENCE = "a red fox on a hill, at night"


@pytest.fixture
def copy(tmp_path):
    """Saves a tokenizer as a pipeline's only component and copies it; returns source and copy."""

    def run(tokenizer, class_name):
        source, staging = tmp_path / "source", tmp_path / "bundle"
        tokenizer.save_pretrained(source / "tokenizer")
        staging.mkdir()
        index = {
            "_class_name": "StableDiffusionPipeline",
            "tokenizer": ["transformers", class_name],
        }
        (source / "model_index.json").write_text(json.dumps(index))
        skeleton = SimpleNamespace(modules={}, omitted={})
        assert copy_helpers(read_pipeline_folder(source), skeleton, staging) == ("tokenizer",)
        return source, staging

    return run


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("tokenizer", "class_name"),
    [(clip_tokenizer(), "CLIPTokenizer"), (qwen_tokenizer(), "Qwen2Tokenizer")],
    ids=["clip", "qwen"],
)
def test_byte_pairs_come_as_vocabulary_and_merges_too(copy, tokenizer, class_name):
    source, staging = copy(tokenizer, class_name)
    model = read(source / "tokenizer" / "tokenizer.json")["model"]

    assert not (source / "tokenizer" / "vocab.json").exists()
    assert read(staging / "tokenizer" / "vocab.json") == model["vocab"]
    version, *merges = (
        (staging / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    )
    assert version == "#version: 0.2"
    assert [line.split(" ") for line in merges] == [list(pair) for pair in model["merges"]]
    assert read(staging / "model_index.json")["tokenizer"] == ["transformers", class_name]
    again = type(tokenizer).from_pretrained(staging / "tokenizer")
    assert again(SENTENCE)["input_ids"] == tokenizer(SENTENCE)["input_ids"]


def test_a_vocabulary_of_the_source_stays(copy, tmp_path):
    (tmp_path / "source" / "tokenizer").mkdir(parents=True)
    (tmp_path / "source" / "tokenizer" / "vocab.json").write_text("{}")
    _, staging = copy(clip_tokenizer(), "CLIPTokenizer")

    assert (staging / "tokenizer" / "vocab.json").read_text() == "{}"
    assert not (staging / "tokenizer" / "merges.txt").exists()


def test_what_only_tokenizer_json_expresses_is_named_fast(copy):
    _, staging = copy(t5_tokenizer(), "T5Tokenizer")

    assert read(staging / "model_index.json")["tokenizer"] == ["transformers", "T5TokenizerFast"]
    assert not (staging / "tokenizer" / "vocab.json").exists()


def test_keys_of_one_version_or_one_machine_stay_behind(copy):
    source, staging = copy(qwen_tokenizer(), "Qwen2Tokenizer")
    before, after = (
        read(root / "tokenizer" / "tokenizer_config.json") for root in (source, staging)
    )

    assert {"backend", "extra_special_tokens"} <= before.keys()
    assert not {"backend", "is_local", "extra_special_tokens"} & after.keys()
    assert after["additional_special_tokens"] == before["extra_special_tokens"]
    assert after.items() >= {k: before[k] for k in after.keys() & before.keys()}.items()


def test_templates_of_conversations_travel_and_somebodys_notes_do_not(copy, tmp_path):
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }}"}
    folder = tmp_path / "source" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "video_preprocessor_config.json").write_text("{}")
    (folder / "read me (1).txt").write_text("x")
    (folder / "code.py").write_text("raise SystemExit")
    _, staging = copy(tokenizer, "Qwen2Tokenizer")

    again = type(tokenizer).from_pretrained(staging / "tokenizer")
    assert again.chat_template == tokenizer.chat_template
    names = {path.name for path in (staging / "tokenizer").iterdir()}
    assert {"chat_template.jinja", "video_preprocessor_config.json"} <= names
    assert not {"read me (1).txt", "code.py"} & names
