"""Options as they are written."""

from __future__ import annotations

import pytest

from qdx.analyze.option_text import candidates, parse_option
from qdx.exporter.errors import UsageError
from qdx.search.rule_text import said


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


@pytest.mark.parametrize(
    ("text", "label", "asked"),
    [
        ("int4~gptq", "int4 channel + gptq", {"rounding": "gptq"}),
        ("int4~rank16", "int4 channel + rank 16", {"low_rank": {"rank": 16}}),
        ("int3*1.15~gptq", "int3 channel x1.15 + gptq", {"range_factor": 1.15, "rounding": "gptq"}),
        ("int4/int4~rank32~gptq", "int4 channel / int4 tensor + rank 32 + gptq", {"low_rank": {"rank": 32}, "rounding": "gptq"}),
        ("palette4~gptq", "palette4 tensor + gptq", {"rounding": "gptq"}),
    ],
)  # fmt: skip
def test_methods_are_what_a_plan_asks_of_weights(text, label, asked):
    found = parse_option(text)
    plain = parse_option(text.partition("~")[0].replace("*1.15", ""))

    assert found.label == label
    assert found.inputs == plain.inputs
    assert said(found.weights) == said(plain.weights) | asked


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int4~", "`` is not a method"),
        ("int4~GPTQ", "`GPTQ` is not a method"),
        ("int4~rank", "`rank` is not a method"),
        ("int4~rank0", "greater than or equal to 1"),
        ("int4~rank1025", "less than or equal to 1024"),
        ("int4~rank16.5", "`rank16.5` is not a method"),
        ("int4~gptq~gptq", "comes after another of its kind"),
        ("int4~rank8~rank16", "comes after another of its kind"),
        ("int4~gptq/int8", "`gptq/int8` is not a method"),
        ("int4~adaround", "learns the weights of a block together"),
        ("/int8~gptq", "is a method for weights, and it has none"),
        ("~gptq", "names no type"),
    ],
)
def test_what_is_no_method_is_refused(text, words):
    with pytest.raises(UsageError) as refused:
        parse_option(text)
    assert words in refused.value.message
    assert refused.value.hint


def test_methods_in_another_order_are_the_same_option():
    with pytest.raises(UsageError, match="comes twice"):
        candidates(["int4~rank16~gptq", "int4~gptq~rank16"])


def test_an_option_that_comes_twice_is_refused():
    with pytest.raises(UsageError, match="comes twice"):
        candidates(["int8", "int4", "int8:channel"])
