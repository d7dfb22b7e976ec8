"""Operations of a bundle are counted by the precision that they really have."""

from __future__ import annotations

import json

import pytest

from qdx.bundle.precisions import Precision, operations_of
from qdx.bundle.resolution import ResolvedRecord, record_of
from qdx.cli.precision_words import precision_words
from qdx.exporter.plan import load_plan, resolve
from qdx.targets import load_target
from tests.support.plans import INT8, KINDS, SITES, plan_of

LINEAR = {"select": {"component": "unet", "op": "linear"}}


def operations(plan, target="openvino", component="unet"):
    resolved = resolve(plan, ["unet", "vae"], load_target(target), SITES, KINDS)
    record = ResolvedRecord.model_validate_json(json.dumps(record_of(resolved)))
    return operations_of(record, component)


def test_a_component_in_floats_has_no_quantized_operation():
    found = operations(load_plan("w8a8"), component="vae")

    assert found.quantized == ()
    assert precision_words(found, "float16", "float32") == "float16, computed in float32"
    assert precision_words(found, "float32", "float32") == "float32"


def test_operations_of_a_preset_are_counted_by_their_precision():
    found = operations(load_plan("w8a8"))
    words = precision_words(found, "float32", "float32")

    assert sum(count for _, count in found.quantized) <= found.total
    assert words.startswith("int8 weights x int8 inputs in ")
    assert words.endswith(f" of {found.total} operations, else float32")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{**LINEAR, "weights": INT8}], "int8 weights x float inputs in 3"),
        (
            [{**LINEAR, "weights": {"dtype": "int4", "granularity": "channel"}, "inputs": INT8}],
            "int4 weights held in int8 x int8 inputs, computed wider in 3",
        ),
        ([{"select": {"op": "conv2d"}, "weights": INT8}], "int8 weights x float inputs, computed as floats in 3"),
        ([{"select": {"op": ["qk", "pv"]}, "inputs": INT8, "when": "always"}], "int8 inputs in 2"),
        (
            [
                {**LINEAR, "weights": INT8, "inputs": {**INT8, "symmetric": True}},
                {
                    "select": {**LINEAR["select"], "timesteps": [0, 0.3]},
                    "inputs": {"dtype": "int4", "symmetric": True},
                },
            ],
            "int8 weights x int4/int8 inputs by timestep, computed wider in 3",
        ),
    ],
)  # fmt: skip
def test_a_precision_in_words(rules, words):
    found = operations(plan_of(*rules, calibration={"timestep_groups": 10}))

    assert precision_words(found, "float32", "float32").startswith(f"{words} of 8 operations")


def test_the_most_frequent_precision_comes_first():
    rule = {"select": {"component": "unet", "op": ["conv2d", "linear"]}, "weights": INT8}
    inputs = {"select": {"component": "unet", "role": "first"}, "inputs": INT8}
    found = operations(plan_of(rule, inputs))

    assert [count for _, count in found.quantized] == sorted(
        (count for _, count in found.quantized), reverse=True
    )
    assert found.quantized[-1] == (Precision("int8", None, ("int8",), "native"), 1)
