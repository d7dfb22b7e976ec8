"""Variants of a method: calls that no one graph can answer are graphs of their own, and every call finds its own."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.capture.calls import CallRecord, LiveCall
from qdx.exporter.capture.variants import (
    SHAPES_LIMIT,
    CallSignature,
    calls_by_variant,
    choose_variant,
    variants,
)


def test_a_number_that_differs_between_calls_becomes_a_tensor() -> None:
    records = [_record(sample=torch.zeros(1), timestep=t) for t in (999, 0)]

    (record,) = variants(records).values()

    assert record.tensors()["timestep"].shape == ()
    assert record.tensors()["timestep"].dtype == torch.int64


def test_a_number_that_stays_is_baked_in() -> None:
    (record,) = variants([_record(sample=torch.zeros(1), scale=2.0)] * 2).values()
    assert record.constants() == {"scale": 2.0}


def test_calls_with_other_tensors_are_variants_of_the_method() -> None:
    records = [
        _record(text=torch.zeros(1)),
        _record(seconds=torch.zeros(1)),
        _record(text=torch.zeros(1)),
    ]
    assert list(variants(records)) == ["unet.forward", "unet.forward_2"]


GRAPHS = {
    "unet.forward": CallSignature(frozenset({"text"})),
    "unet.forward_2": CallSignature(frozenset({"text", "timestep"})),
    "unet.forward_image": CallSignature(frozenset({"image"})),
    "vae.forward": CallSignature(frozenset({"image"})),
}


@pytest.mark.parametrize(
    ("where", "leaves", "chosen"),
    [
        ("unet.forward", {"text": torch.zeros(1), "flag": True}, "unet.forward"),
        ("unet.forward", {"text": torch.zeros(1), "timestep": torch.zeros(())}, "unet.forward_2"),
        ("unet.forward", {"image": torch.zeros(1)}, "unet.forward"),
        ("unet.forward_image", {"image": torch.zeros(1)}, "unet.forward_image"),
        ("unet.encode", {"text": torch.zeros(1)}, None),
    ],
)
def test_a_call_belongs_to_the_variant_that_takes_its_tensors(where, leaves, chosen) -> None:
    assert choose_variant(GRAPHS, _call(where, leaves)) == chosen


def test_a_number_counts_where_the_graph_takes_one() -> None:
    graphs = {
        "unet.forward": CallSignature(frozenset({"sample", "class"})),
        "unet.forward_2": CallSignature(frozenset({"sample", "timestep"})),
    }
    leaves = {"sample": torch.zeros(1), "timestep": 0.5}

    assert choose_variant(graphs, _call("unet.forward", leaves)) == "unet.forward_2"


def test_calls_of_other_shapes_are_variants_where_sizes_are_fixed() -> None:
    records = [_record(sample=torch.zeros(n)) for n in (1, 3, 1)]
    assert list(calls_by_variant(records, by_shape=True)) == ["unet.forward", "unet.forward_2"]
    assert list(calls_by_variant(records, by_shape=False)) == ["unet.forward"]


def test_too_many_shapes_are_one_graph() -> None:
    records = [_record(sample=torch.zeros(n + 1)) for n in range(SHAPES_LIMIT + 1)]
    assert list(calls_by_variant(records, by_shape=True)) == ["unet.forward"]


def test_calls_with_other_flags_or_in_another_state_are_variants() -> None:
    swapped = CallRecord("unet", "forward", {"x": torch.zeros(1)}, state={"processor": "Other"})
    records = [_record(x=torch.zeros(1)), _record(x=torch.zeros(1), flag=True), swapped]
    found = calls_by_variant(records, by_shape=True)
    assert list(found) == ["unet.forward", "unet.forward_2", "unet.forward_3"]


@pytest.mark.parametrize(
    ("leaves", "state", "chosen"),
    [
        ({"x": torch.zeros(1), "m": torch.ones(1)}, {}, "unet.forward"),
        ({"x": torch.zeros(2), "m": torch.ones(1)}, {}, "unet.forward_2"),
        ({"x": torch.zeros(1), "m": torch.zeros(1)}, {}, "unet.forward_3"),
        ({"x": torch.zeros(1), "m": torch.ones(1)}, {"processor": "Other"}, "unet.forward_4"),
    ],
    ids=["as the first", "other shape", "other values", "other state"],
)
def test_the_nearest_variant_answers(leaves, state, chosen) -> None:
    def one(size: int, mask: float, state: dict[str, str]) -> CallSignature:
        return CallSignature(frozenset({"x"}), {"x": (size,)}, state, {"m": [mask]})

    signatures = {
        "unet.forward": one(1, 1.0, {}),
        "unet.forward_2": one(2, 1.0, {}),
        "unet.forward_3": one(1, 0.0, {}),
        "unet.forward_4": one(1, 1.0, {"processor": "Other"}),
    }
    assert choose_variant(signatures, _call("unet.forward", leaves, state)) == chosen


def _record(**arguments: object) -> CallRecord:
    return CallRecord("unet", "forward", arguments)


def _call(where, leaves, state=None) -> LiveCall:
    component, method = where.split(".")
    return LiveCall(component, method, dict, leaves, changes=lambda: state or {})
