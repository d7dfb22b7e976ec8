from __future__ import annotations

import json

import pytest

from qdx.backends.tensorrt.recipe import BuildRecipe, InputShapes, parse_recipe, shape_faults
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.graph.ir.graph import TensorSpec

SHAPES = {"min": [1, 4, 8, 8], "opt": [2, 4, 8, 8], "max": [4, 4, 16, 16]}
INPUTS = (
    TensorSpec("x", "float16", ("batch", 4, "height", "width")),
    TensorSpec("t", "int64", ()),
)


def recipe(**changes):
    return json.dumps({"schema": "qdx.tensorrt.build/1", **changes}).encode()


def parsed(**changes):
    return parse_recipe(recipe(**changes), source="build.json")


def test_a_recipe_reads_as_it_was_written():
    written = BuildRecipe(
        profiles=({"x": InputShapes(min=(1, 4), opt=(2, 4), max=(4, 4))},),
        optimization_level=4,
        workspace_bytes=1 << 30,
        hardware_compatibility="ampere_plus",
        version_compatible=True,
        refit="identical",
        strip_weights=True,
    )

    assert parse_recipe(written.to_json(), source="build.json") == written


def test_nothing_is_left_to_defaults_of_tensorrt():
    found = json.loads(BuildRecipe().to_json())

    assert found.pop("schema") == "qdx.tensorrt.build/1"
    assert found == {
        "compute_capabilities": [],
        "context": None,
        "flavour": "tensorrt",
        "exclude_lean_runtime": False,
        "hardware_compatibility": "none",
        "model": "model.onnx",
        "optimization_level": 3,
        "profiles": [],
        "refit": "none",
        "strip_weights": False,
        "tf32": False,
        "version_compatible": False,
        "versions": ">=10.12,<12.0",
        "weight_streaming": False,
        "workspace_bytes": None,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fp16": True}, "`fp16`: Extra inputs are not permitted"),
        ({"schema": "qdx.tensorrt.build/2"}, "expected `qdx.tensorrt.build/1`"),
        ({"optimization_level": 6}, "`optimization_level`: Input should be less than or equal to 5"),
        ({"tf32": "yes"}, "`tf32`: Input should be a valid boolean"),
        ({"model": "../model.onnx"}, "not an allowed relative path"),
        ({"model": "unet/model.onnx"}, "expected a file beside the recipe"),
        ({"context": "../model.onnx"}, "not an allowed relative path"),
        ({"context": "unet/model.onnx"}, "`context` is in another folder"),
        ({"context": "model.onnx"}, "`context` is the model that the engine is built from"),
        ({"context": "other.onnx"}, "`context` for TensorRT: it is for TensorRT-RTX's engines"),
        ({"versions": "any"}, "not a range of versions"),
        ({"strip_weights": True}, "the weights could not come back"),
        ({"exclude_lean_runtime": True}, "without `version_compatible`"),
        ({"profiles": [{}]}, "`profiles` name different inputs"),
        ({"profiles": [{"x": SHAPES}, {"y": SHAPES}]}, "`profiles` name different inputs"),
        ({"profiles": [{"x": {**SHAPES, "opt": [1, 4, 8, 32]}}]}, "not between those of"),
        ({"profiles": [{"x": {**SHAPES, "opt": [1, 4, 8]}}]}, "differ in the number of sizes"),
        ({"profiles": [{"x": {**SHAPES, "min": [-1, 4, 8, 8]}}]}, "greater than or equal to 0"),
        ({"flavour": "tensorrt-lean"}, "`flavour`: Input should be 'tensorrt' or 'tensorrt-rtx'"),
        ({"compute_capabilities": ["8.9"]}, "TensorRT, which builds for the device at hand"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(changes, message):
    with pytest.raises(InvalidBundle, match=message):
        parsed(**changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimization_level": 5}, "every level gives the same engine"),
        ({"workspace_bytes": 1 << 20}, "which chooses the kernels later"),
        ({"hardware_compatibility": "ampere_plus"}, "it is not supported there"),
        ({"version_compatible": True}, "for the very version that built it"),
        ({"refit": "any"}, "fails without a driver"),
        ({"refit": "any", "strip_weights": True}, "fails without a driver"),
    ],
)
def test_what_rtx_does_not_do_is_refused_with_the_reason(changes, why):
    with pytest.raises(InvalidBundle, match=rf"` for TensorRT-RTX: .*{why}.*; leave it out"):
        parsed(flavour="tensorrt-rtx", **changes)


@pytest.mark.parametrize("capabilities", [[], ["7.5"], ["8.0", "8.6"], ["8.9"], ["12.0", "12.1"]])
def test_an_engine_is_for_the_devices_of_one_generation(capabilities):
    found = parsed(flavour="tensorrt-rtx", compute_capabilities=capabilities, weight_streaming=True)

    assert found.compute_capabilities == tuple(capabilities)
    assert found.builder.module == "tensorrt_rtx"
    assert parse_recipe(found.to_json(), source="build.json") == found


@pytest.mark.parametrize(
    ("capabilities", "why"),
    [
        (["7.5", "8.9", "12.0"], "Turing and Ada and Blackwell: .* without the INT8 convolutions"),
        (["8.6", "8.9"], "Ampere and Ada: .* without the types of the newer ones"),
        (["9.0"], "'9.0' is not one that engines are compiled for, expected 7.5, 8.0, 8.6"),
        (["8.9", "8.9"], "names one twice"),
    ],
)
def test_an_engine_for_several_generations_is_refused(capabilities, why):
    with pytest.raises(InvalidBundle, match=f"`compute_capabilities`: .*{why}"):
        parsed(flavour="tensorrt-rtx", compute_capabilities=capabilities)


def test_faults_have_a_place():
    text = b'{\n  "schema": "qdx.tensorrt.build/1",\n  "optimization_level": 9\n}'

    with pytest.raises(InvalidBundle, match=r"`build\.json:3:3`: `optimization_level`"):
        parse_recipe(text, source="build.json")


def test_profiles_fit_the_inputs():
    assert shape_faults(parsed(profiles=[{"x": SHAPES}]), INPUTS) == ()
    assert shape_faults(parsed(), INPUTS[1:]) == ()


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ([], "no profile for the open sizes of x"),
        ([{"x": SHAPES, "y": SHAPES}], "profile 0: no input `y`"),
        ([{"t": {"min": [], "opt": [], "max": []}}], "profile 0: no shapes of `x`"),
        ([{"x": {key: [1, 4] for key in SHAPES}}], "profile 0: `x` has 2 sizes, expected 4"),
        (
            [{"x": {**SHAPES, "max": [4, 8, 16, 16]}}],
            "profile 0: `x`: size 1 is fixed to 4, got [4, 8]",
        ),
    ],
)
def test_profiles_that_do_not_fit_are_named(profiles, message):
    assert shape_faults(parsed(profiles=profiles), INPUTS) == (message,)
