"""Options as they are written."""

from __future__ import annotations

import pytest

from qdx.analyze.option_text import candidates, parse_option
from qdx.exporter.errors import UsageError


@pytest.mark.parametrize(
    ("text", "label", "weights", "inputs"),
    [
        ("int8", "int8 channel", ("int8", "channel", "minmax"), None),
        ("int3", "int3 channel", ("int3", "channel", "mse"), None),
        ("int4:block32", "int4 block 32", ("int4", "block", "mse"), None),
        ("palette4", "palette4 tensor", ("palette4", "tensor", "minmax"), None),
        ("palette2:group16", "palette2 group 16", ("palette2", "grouped_channel", "minmax"), None),
        ("int8/int8", "int8 channel / int8 tensor", ("int8", "channel", "minmax"), ("int8", "tensor", "static")),
        ("int8/int8:token", "int8 channel / int8 token", ("int8", "channel", "minmax"), ("int8", "token", "dynamic")),
        ("/int8", "inputs int8 tensor", None, ("int8", "tensor", "static")),
        ("nvfp4/nvfp4", "nvfp4 / nvfp4 block", ("nvfp4", None, "mse"), ("nvfp4", "block", "dynamic")),
    ],
)  # fmt: skip
def test_an_option_is_read_as_it_is_written(text, label, weights, inputs):
    found = parse_option(text)

    assert found.label == label
    asked = found.weights
    assert (asked and (asked.dtype, asked.granularity, asked.observer)) == weights
    fed = found.inputs
    assert (fed and (fed.dtype, fed.granularity, fed.mode)) == inputs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no type"),
        ("int9", "`int9` is not a type of weights"),
        ("int8/int9", "`int9` is not a type of inputs"),
        ("int4:block7", "block"),
        ("int4:rows", "says nothing that shares a scale"),
        ("int4:group16", "means nothing for int4"),
        ("palette4:block32", "block"),
        ("INT8", "cannot be read"),
        ("int8/int8/int8", "cannot be read"),
        ("int4:block0", "block"),
        (f"int4:block{'9' * 5000}", "cannot be read"),
        (f"int{'4' * 5000}", "is not a type of weights"),
        ("int8/int8:groups0", "greater than or equal to 1"),
        ("nvfp4/nvfp4:token", "says nothing that shares a scale"),
        ("int3*0", "greater than"),
        ("int3*", "cannot be read"),
    ],
)
def test_what_is_no_option_is_refused(text, words):
    with pytest.raises(UsageError) as refused:
        parse_option(text)
    assert words in refused.value.message
    assert refused.value.hint


def test_an_option_that_comes_twice_is_refused():
    with pytest.raises(UsageError, match="comes twice"):
        candidates(["int8", "int4", "int8:channel"])
