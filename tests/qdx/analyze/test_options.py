"""Options: as they are written, and as targets offer them."""

from __future__ import annotations

import pytest

from qdx.analyze.options import candidates, offerings, parse_option
from qdx.exporter.errors import UsageError
from qdx.exporter.plan.schema.load import load_plan
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.targets.profile import load_target

WHERE = "unet.forward"


@pytest.fixture(scope="module")
def source(tiny_sd):
    return trace_pipeline(tiny_sd, {})


def offered(source, target, asked=None, plan="float32"):
    profile = load_target(target)
    planned = plan_graphs(source, load_plan(plan), profile)
    return offerings(source, planned, profile, candidates(asked), [WHERE])


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
        ("nvfp4/nvfp4", "nvfp4 / nvfp4 block", ("nvfp4", None, "minmax"), ("nvfp4", "block", "dynamic")),
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


def test_a_target_offers_what_it_has_kernels_for(source):
    found = {one.option.label: one for one in offered(source, "openvino")}

    assert [one.option.id for one in found.values()] == list(range(1, len(found) + 1))
    assert {"int8 channel", "int4 channel", "int8 channel / int8 tensor"} <= found.keys()
    assert not any("palette" in label or "nvfp4" in label for label in found)
    forms = {one.resolution.form for o in found.values() for one in o.sites.values()}
    assert forms <= {"native", "decomposed", "stored"}
    convolution = found["int4 channel"].sites[WHERE, "conv_in"]
    assert convolution.resolution.form == "stored"
    assert convolution.slower == "what runs is the same"
    assert found["int8 channel / int8 tensor"].sites[WHERE, "conv_in"].slower is None


def test_products_of_attention_take_options_without_weights_alone(source):
    for one in offered(source, "openvino"):
        ops = {offer.resolution.site.op for offer in one.sites.values()}
        assert (ops <= {"qk", "pv"}) == (one.option.weights is None)


def test_every_other_operation_stays_float(source):
    for one in offered(source, "openvino"):
        quantized = {resolution.key for resolution in one.resolved.quantized(WHERE)}
        assert quantized == {key for where, key in one.sites if where == WHERE}


def test_options_that_come_to_the_same_are_offered_once(source):
    found = {one.option.label: one for one in offered(source, "openvino")}
    # No matrix of this model is longer than 64: a block of 128 would hold a channel.
    assert "int4 block 128" not in found


def test_what_a_target_refuses_is_simulated_where_it_is_asked_for(source):
    (one, eight) = offered(source, "openvino", ["int3", "int8"])

    assert {offer.resolution.form for offer in one.sites.values()} == {"simulated"}
    assert {offer.resolution.site.op for offer in one.sites.values()} == {"conv2d", "linear"}
    assert "simulated" not in {offer.resolution.form for offer in eight.sites.values()}


def test_a_palette_target_offers_palettes(source):
    labels = [one.option.label for one in offered(source, "coreml", plan="w8")]
    assert {f"palette{bits} tensor" for bits in (1, 2, 3, 4, 6, 8)} <= set(labels)
