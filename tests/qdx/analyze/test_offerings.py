"""Options as targets offer them."""

from __future__ import annotations

import math

import pytest

from qdx.analyze.offerings import offerings
from qdx.analyze.option_text import candidates
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.transforms.low_rank import Branchable
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


def test_branches_are_offered_where_they_can_stand(source, monkeypatch):
    (plain, branched) = offered(source, "openvino", ["int4", "int4~rank6"])
    small = {key for (_, key), offer in plain.sites.items() if min(matrix(offer)) < 6}
    assert small
    assert {key for _, key in plain.sites} - {key for _, key in branched.sites} == small

    possible = Branchable.why_not
    monkeypatch.setattr(
        Branchable, "why_not",
        lambda self, sites: (sites[0], "groups") if sites[0].key == "conv_in" else possible(self, sites),
    )  # fmt: skip
    (without,) = offered(source, "openvino", ["int4~rank6"])
    assert branched.sites.keys() - without.sites.keys() == {(WHERE, "conv_in")}
    assert "conv_in" not in {one.key for one in without.resolved.quantized(WHERE)}


def matrix(offer):
    shape = offer.resolution.site.weight_shape
    return shape[0], math.prod(shape[1:])


def test_a_palette_target_offers_palettes(source):
    labels = [one.option.label for one in offered(source, "coreml", plan="w8")]
    assert {f"palette{bits} tensor" for bits in (1, 2, 3, 4, 6, 8)} <= set(labels)
