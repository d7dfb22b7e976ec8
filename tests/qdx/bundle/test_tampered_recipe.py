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
    "a schema": (lambda d: d.update(schema="qdx.recipe/1"), "schema"),
    "a key": (lambda d: d.update(more=1), "more"),
    "a key of a transform": (lambda d: part(d, "smoothing").update(more=1), "transforms.0.more"),
    "an unknown transform": (lambda d: part(d, "smoothing").update(transform="rotation"), "transforms.0.transform: expected each of"),
    "a transform without a name": (lambda d: part(d, "smoothing").pop("transform"), "transforms.0.transform"),
    "a transform twice": (lambda d: d["transforms"].append(d["transforms"][0]), "at most once"),
    "another order": (lambda d: d["transforms"].reverse(), "expected the order open_attention, smoothing"),
    "no transforms": (lambda d: d["transforms"].clear(), "transforms"),
    "a rounding": (lambda d: d["transforms"].insert(1, {"transform": "rounding", "sites": {"conv_in": "by lot"}}), "one of nearest"),
    "a scale of zero": (lambda d: activation(d).update(scale=0.0), "scale"),
    "a negative scale": (lambda d: activation(d).update(scale=-1.0), "scale"),
    "an infinite scale": (lambda d: activation(d).update(scale=1e300), "scale"),
    "a scale of text": (lambda d: activation(d).update(scale="1"), "scale"),
    "a zero point": (lambda d: activation(d).update(zero_point=128), "zero point of -128 to 127"),
    "bounds": (lambda d: activation(d).update(bounds=[-200, 3]), "rising bounds"),
    "a dtype": (lambda d: activation(d).update(dtype="int64"), "dtype"),
    "groups": (lambda d: activation(d).update(groups={"boundaries": [5.0], "ratios": [1.0]}), "each of 2 groups"),
    "a timestep": (lambda d: part(d, "insert_quantizers").update(timestep_input="timestep"), "a timestep_input where"),
    "a site twice": (lambda d: sites(d).append(sites(d)[0]), "each site once"),
    "an axis": (lambda d: sites(d)[0]["weight"].update(axis=-9), "axis"),
    "a block": (lambda d: sites(d)[0]["weight"].update(block=7), "block"),
    "an empty table": (lambda d: d["transforms"].insert(1, {"transform": "time_table", "input": "timestep", "timesteps": []}), "timesteps"),
    "one more site": (lambda d: part(d, "smoothing")["sites"].append("elsewhere"), "tensor smoothing.elsewhere is missing"),
    "one site less": (lambda d: part(d, "bias_correction")["weights"].pop("conv_in"), "tensor bias_correction.conv_in is not expected"),
}  # fmt: skip


def part(data, kind):
    return next(one for one in data["transforms"] if one["transform"] == kind)


def sites(data):
    return part(data, "insert_quantizers")["sites"]


def activation(data):
    return next(iter(sites(data)[0]["inputs"].values()))


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
        tensors["smoothing.conv_in"][0] = 0
        save_file(tensors, recipe / "quantization.safetensors")
        with pytest.raises(InvalidBundle, match="holds numbers that none can have"):
            read_recipe(recipe)

    @pytest.mark.parametrize("kind", ["smoothing", "bias_correction"])
    def test_numbers_for_more_channels_than_there_are(self, recipe, smallest, kind):
        tensors = load_file(recipe / "quantization.safetensors")
        name = f"{kind}.down_blocks.0.resnets.0.conv1"
        tensors[name] = tensors[name].repeat(3)[:-1].clone()
        save_file(tensors, recipe / "quantization.safetensors")
        graph = trace_pipeline(smallest, dict(CALL)).graph("unet.forward")
        with pytest.raises(InvalidBundle, match=r"that of another graph: .*(factors|means)"):
            rebuilt(graph, read_recipe(recipe))

    def test_means_in_another_dtype(self, recipe):
        tensors = load_file(recipe / "quantization.safetensors")
        tensors["bias_correction.conv_in"] = tensors["bias_correction.conv_in"].half()
        save_file(tensors, recipe / "quantization.safetensors")
        with pytest.raises(InvalidBundle, match=r"torch.float16 .*expected float32"):
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
        sites(data)[0]["key"] = "elsewhere"
        (recipe / "quantization.json").write_text(json.dumps(data))
        graph = trace_pipeline(smallest, dict(CALL)).graph("unet.forward")
        with pytest.raises(InvalidBundle, match=r"that of another graph: .*elsewhere"):
            rebuilt(graph, read_recipe(recipe))

    def test_a_recipe_that_names_another_graph(self, recipe, smallest):
        data = json.loads((recipe / "quantization.json").read_text())
        (recipe / "quantization.json").write_text(json.dumps({**data, "where": "vae.decode"}))
        graph = trace_pipeline(smallest, dict(CALL)).graph("unet.forward")
        with pytest.raises(InvalidBundle, match=r"it is for `vae.decode`"):
            rebuilt(graph, read_recipe(recipe))

    def test_an_altered_recipe_in_a_bundle(self, exported):
        path = exported / "unet" / "quantization.json"
        kept = path.read_bytes()
        try:
            path.write_bytes(kept.replace(b'"zero_point": -', b'"zero_point":  ', 1))
            assert path.read_bytes() != kept
            with pytest.raises(InvalidBundle, match=r"quantization.json"):
                read_bundle(exported)
        finally:
            path.write_bytes(kept)
