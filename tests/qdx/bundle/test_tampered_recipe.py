"""Recipes out of bundles are untrusted: what no export writes is refused."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file

from qdx.bundle import read_bundle
from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.exporter.errors import InvalidBundle
from qdx.source.pipeline import trace_pipeline
from tests.support.quantizing import CALL, STATIC, export, plan

TAMPERED = {
    "a schema": (lambda d: d.update(schema="qdx.recipe/2"), "schema"),
    "a key": (lambda d: d.update(more=1), "more"),
    "a scale of zero": (lambda d: activation(d).update(scale=0.0), "scale"),
    "a negative scale": (lambda d: activation(d).update(scale=-1.0), "scale"),
    "an infinite scale": (lambda d: activation(d).update(scale=1e300), "scale"),
    "a scale of text": (lambda d: activation(d).update(scale="1"), "scale"),
    "a zero point": (lambda d: activation(d).update(zero_point=128), "zero point of -128 to 127"),
    "bounds": (lambda d: activation(d).update(bounds=[-200, 3]), "rising bounds"),
    "a dtype": (lambda d: activation(d).update(dtype="int64"), "dtype"),
    "groups": (lambda d: activation(d).update(groups={"boundaries": [5.0], "ratios": [1.0]}), "each of 2 groups"),
    "a timestep": (lambda d: d.update(timestep_input="timestep"), "a timestep_input where"),
    "a site twice": (lambda d: d["placement"]["sites"].append(d["placement"]["sites"][0]), "each site once"),
    "an axis": (lambda d: d["placement"]["sites"][0]["weight"].update(axis=-9), "axis"),
    "a block": (lambda d: d["placement"]["sites"][0]["weight"].update(block=7), "block"),
    "an empty table": (lambda d: d.update(time_table={"input": "timestep", "timesteps": []}), "timesteps"),
    "a size": (lambda d: d["smoothing"].update(conv_in=99), "smoothing"),
    "no size": (lambda d: d.pop("means"), "means"),
}  # fmt: skip


def activation(data):
    return next(iter(data["placement"]["sites"][0]["inputs"].values()))


@pytest.fixture(scope="module")
def exported(smallest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tampered")
    options = {"smoothing": {"alpha": 0.5}, "bias_correction": True}
    export(smallest, folder, plan(STATIC, **options), "openvino")
    return folder / "openvino"


class TestTamperedRecipe:
    @pytest.fixture
    def recipe(self, exported, tmp_path):
        for name in ("quantization.json", "quantization.safetensors"):
            (tmp_path / name).write_bytes((exported / "unet" / name).read_bytes())
        return tmp_path

    @pytest.mark.parametrize("name", TAMPERED)
    def test_a_value_that_no_export_writes(self, recipe, name):
        change, words = TAMPERED[name]
        data = json.loads((recipe / "quantization.json").read_text())
        change(data)
        (recipe / "quantization.json").write_text(json.dumps(data))
        with pytest.raises(InvalidBundle, match=words):
            read_recipe(recipe)

    def test_a_factor_of_zero(self, recipe):
        tensors = load_file(recipe / "quantization.safetensors")
        tensors["smoothing"][0] = 0
        save_file(tensors, recipe / "quantization.safetensors")
        with pytest.raises(InvalidBundle, match="holds numbers that none can have"):
            read_recipe(recipe)

    def test_damaged_tensors(self, recipe):
        path = recipe / "quantization.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InvalidBundle, match=r"quantization.safetensors"):
            read_recipe(recipe)

    def test_missing_tensors(self, recipe):
        (recipe / "quantization.safetensors").unlink()
        with pytest.raises(InvalidBundle, match="is missing"):
            read_recipe(recipe)

    def test_a_recipe_of_another_graph(self, recipe, smallest):
        data = json.loads((recipe / "quantization.json").read_text())
        data["placement"]["sites"][0]["key"] = "elsewhere"
        (recipe / "quantization.json").write_text(json.dumps(data))
        graph = trace_pipeline(smallest, dict(CALL)).graph("unet.forward")
        with pytest.raises(InvalidBundle, match=r"that of another graph: .*elsewhere"):
            rebuilt(graph, read_recipe(recipe))

    def test_an_altered_recipe_in_a_bundle(self, exported):
        path = exported / "unet" / "quantization.json"
        kept = path.read_bytes()
        try:
            path.write_bytes(kept.replace(b'"zero_point": 0', b'"zero_point": 1', 1))
            with pytest.raises(InvalidBundle, match=r"quantization.json"):
                read_bundle(exported)
        finally:
            path.write_bytes(kept)
