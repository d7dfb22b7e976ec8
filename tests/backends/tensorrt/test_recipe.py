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
        ({"versions": "any"}, "not a range of versions"),
        ({"strip_weights": True}, "the weights could not come back"),
        ({"exclude_lean_runtime": True}, "without `version_compatible`"),
        ({"profiles": [{}]}, "`profiles` name different inputs"),
        ({"profiles": [{"x": SHAPES}, {"y": SHAPES}]}, "`profiles` name different inputs"),
        ({"profiles": [{"x": {**SHAPES, "opt": [1, 4, 8, 32]}}]}, "not between those of"),
        ({"profiles": [{"x": {**SHAPES, "opt": [1, 4, 8]}}]}, "differ in the number of sizes"),
        ({"profiles": [{"x": {**SHAPES, "min": [-1, 4, 8, 8]}}]}, "greater than or equal to 0"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(changes, message):
    with pytest.raises(InvalidBundle, match=message):
        parsed(**changes)


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
