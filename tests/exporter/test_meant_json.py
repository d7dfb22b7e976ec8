"""A text that is nearly JSON says what it meant, and one that is not near says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdx.exporter.meant_json import meant_json
from qdx.exporter.strict_json import one_line_json

MEANT = {
    "{'prompt': 'a cat'}": {"prompt": "a cat"},
    '{"prompt": "a cat",}': {"prompt": "a cat"},
    '{"a": True, "b": None, "c": [1, 2,],}': {"a": True, "b": None, "c": [1, 2]},
    "{prompt: a cat, height: 64}": {"prompt": "a cat", "height": 64},
    '{\\"prompt\\": \\"a cat\\"}': {"prompt": "a cat"},
    '\'{"prompt": "a cat"}\'': {"prompt": "a cat"},
    "{\u201cprompt\u201d: \u201ca cat\u201d}": {"prompt": "a cat"},
    '{"prompt"= "a cat"}': {"prompt": "a cat"},
    '{"prompt": "a cat"': {"prompt": "a cat"},
    '{"a": 1, // why\n "b": 2}': {"a": 1, "b": 2},
    "['a', 'b']": ["a", "b"],
    "{}": {},
}


@pytest.mark.parametrize(("text", "meant"), MEANT.items(), ids=MEANT)
def test_what_was_meant(text, meant):
    assert meant_json(text) == meant


@pytest.mark.parametrize(
    "text", ["", "a cat", "{]", '{"a": "b', '{"a": 1, "a": 2}', "{'a' 'b'}", "{" * 5000]
)
def test_where_there_is_no_telling_it_is_none(text):
    assert meant_json(text) is None


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_characters="\0")), st.integers(-9, 9)
    )
)
def test_what_is_right_stays_as_it_is(value):
    assert meant_json(one_line_json(value)) == value


@given(st.text(max_size=40))
def test_no_text_breaks_it(text):
    meant_json("{" + text)
