"""YAML of strangers: plain data, or an error with its place; nothing is constructed."""

from __future__ import annotations

import time

import pytest

from qdx.exporter.errors import InvalidInput
from qdx.exporter.limits import JSON_DEPTH
from qdx.exporter.strict_yaml import parse_yaml


def parsed(text):
    return parse_yaml(text, source="f.yaml", error=InvalidInput)


def test_plain_values_mean_what_yaml_1_2_says():
    text = """
    model.conv_in: 8      # a comment
    "14-10": {a: [1, -2, 0.5, 1e-3, .5], b: yes, c: true, d: null, e: ~, f: , g: 12:30, h: 'true', i: 0x10, j: .inf}
    """

    assert parsed(text) == {
        "model.conv_in": 8,
        "14-10": {
            "a": [1, -2, 0.5, 1e-3, 0.5],
            "b": "yes", "c": True, "d": None, "e": None, "f": None, "g": "12:30", "h": "true", "i": "0x10", "j": ".inf",
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: *x", "1:4`: an anchor"),
        ("a: *x", "`f.yaml:1:4`: an alias"),
        ("a: !!python/object/apply:os.system ['true']", "tag `tag:yaml.org,2002:python/object/apply:os.system`"),
        ("a: !!int 3", "tags can name code"),
        ("a: 1\na: 2", "`f.yaml:2:1`: key `a` appears twice"),
        ("? [1]\n: 2", "a key that is no text"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: 9007199254740993", "expected less than 2**53"),
        ("a: 1e999", "out of range"),
        ("a: [1", "f.yaml:"),
        ("a: \x00", "f.yaml:"),
        ("a: \ud800", "f.yaml:"),
        ("a: " + "[" * 40 + "]" * 40, f"nested deeper than {JSON_DEPTH}"),
        ('a: "\\0"', "NUL"),
    ],
)  # fmt: skip
def test_the_rest_is_refused_with_its_place(text, words):
    with pytest.raises(InvalidInput) as caught:
        parsed(text)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 500_000,
        "a: [" + "1," * 400_000 + "]",
        "".join(f"k{n}: [1, 2]\n" for n in range(60_000)),
        "a: |\n" + " x\n" * 200_000 + "b: [",
        "- " * 400_000,
    ],
)
def test_a_large_text_ends_soon(text):
    start = time.process_time()
    with pytest.raises(InvalidInput):
        parsed(text)
    assert time.process_time() - start < 2
