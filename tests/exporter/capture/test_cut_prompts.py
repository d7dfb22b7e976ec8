"""Prompts that are longer than a text encoder reads are seen, with their numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from qdx.exporter.capture.cut_prompts import Cut, cut_words, prompt_words, tokenizing
from tests.support.layers import ROOT

LIMIT = 16
LONG = "a red circle left of " * 5
SHORT = "a red circle"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "samples" / "shapes" / "tokenizer")


def seen(tokenizer, texts, **kwargs):
    with tokenizing(SimpleNamespace(tokenizer=tokenizer, unet=object())) as found:
        tokenizer(texts, **{"truncation": True, "padding": "max_length", **kwargs})
    return found


def test_a_long_prompt_is_cut_and_a_short_one_is_not(tokenizer):
    tokens = len(tokenizer(LONG)["input_ids"])

    assert seen(tokenizer, LONG).cuts() == [Cut("tokenizer", LONG, tokens, LIMIT)]
    assert seen(tokenizer, [SHORT, LONG]).cuts() == [Cut("tokenizer", LONG, tokens, LIMIT)]
    assert seen(tokenizer, SHORT).cuts() == []


def test_the_length_is_that_of_the_call(tokenizer):
    assert seen(tokenizer, LONG, max_length=200).cuts() == []
    assert seen(tokenizer, SHORT, max_length=3).cuts()[0].limit == 3


def test_what_is_not_cut_is_not_told(tokenizer):
    assert seen(tokenizer, LONG, truncation=False, padding=False).cuts() == []


def test_a_prompt_at_the_limit_is_whole(tokenizer):
    words = " ".join(["red"] * 40)
    most = max(n for n in range(40) if len(tokenizer(words[: 4 * n])["input_ids"]) <= LIMIT)

    assert seen(tokenizer, words[: 4 * most]).cuts() == []
    assert len(seen(tokenizer, words[: 4 * most] + " red red").cuts()) == 1


def test_other_prompts_in_the_same_calls(tokenizer):
    found = seen(tokenizer, f"draw: {SHORT}")
    (cut,) = found.cuts_of([SHORT], [SHORT, LONG])

    assert cut.text == f"draw: {LONG}"


def test_what_a_tokenizer_answers_and_is_stays_the_same(tokenizer):
    kind = type(tokenizer)
    with tokenizing(SimpleNamespace(tokenizer=tokenizer)):
        inside = tokenizer(LONG, truncation=True)
        assert isinstance(tokenizer, kind)
        assert type(tokenizer).__name__ == kind.__name__
    assert inside == tokenizer(LONG, truncation=True)
    assert type(tokenizer) is kind


def test_two_threads_that_watch_at_once_leave_the_tokenizer_s_own_class(tokenizer):
    kind, pipeline = type(tokenizer), SimpleNamespace(tokenizer=tokenizer)
    one, other = tokenizing(pipeline), tokenizing(pipeline)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)

    assert type(tokenizer) is kind


def test_the_first_cuts_in_words():
    cuts = [Cut("tokenizer", f"{n} {'x' * 90}", 90, 77) for n in range(5)]
    words = cut_words(cuts, longer=False)

    assert words.startswith("prompts are cut, and what comes after is not read: `0 xxx")
    assert "has 90 tokens, and `tokenizer` reads 77" in words
    assert "; 3 more; shorten them" in words
    assert cut_words(cuts[:1], longer=True).startswith("a prompt is cut")
    assert "; shorten it, or raise" in cut_words(cuts[:1], longer=True)
    assert "max_sequence_length" in cut_words(cuts, longer=True)
    assert prompt_words("a\x1b[2J") == r"`a\x1b[2J`"
