"""A dynamic export for TensorRT: the recipe's profile holds both calls, and the rules hold."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import qdx
from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.produce import read_recipe
from qdx.backends.tensorrt.engine.produce_ahead import produce_ahead
from qdx.backends.tensorrt.engine.record import read_layers
from qdx.backends.tensorrt.recipe import shape_faults
from qdx.bundle import read_bundle
from qdx.engines.lint import lint_bundle
from qdx.exporter.errors import InvalidBundle

CALL = {"num_inference_steps": 2, "height": 16, "width": 16}


@pytest.fixture(scope="module")
def bundle(tiny_sd, tmp_path_factory):
    output = tmp_path_factory.mktemp("dynamic") / "bundle"
    qdx.export(
        tiny_sd, target="tensorrt", plan="float16", output=output, call=CALL, shapes="dynamic"
    )
    return read_bundle(output)


def test_no_rule_is_broken(bundle):
    broken = [one for each in lint_bundle(bundle).values() for one in each]

    assert [one for one in broken if one.severity == "error"] == []


def test_the_profile_reaches_from_one_picture_to_the_second_call(bundle):
    (profile,) = read_recipe(bundle.path / "unet").profiles

    sample, timestep = profile["sample"], profile["timestep"]
    assert (sample.smallest[0], sample.usual[0], sample.largest[0]) == (1, 2, 4)
    assert sample.smallest[2:] == sample.usual[2:]
    assert sample.largest[2:] == (2 * sample.usual[2], 3 * sample.usual[3])
    assert (timestep.smallest, timestep.usual, timestep.largest) == ((1,), (1,), (4,))


@pytest.mark.parametrize("folder", ["unet", "vae_decoder", "text_encoder"])
@pytest.mark.parametrize("which", ["smallest", "usual", "largest"])
def test_the_file_runs_at_the_ends_of_the_profile(bundle, folder, which):
    recipe = read_recipe(bundle.path / folder)
    runner = get_backend("tensorrt").open(bundle.path / folder, {})
    assert shape_faults(recipe, runner.inputs) == ()
    inputs = {
        spec.name: np.ones(
            getattr(recipe.profiles[0][spec.name], which)
            if spec.name in recipe.profiles[0]
            else spec.shape,
            spec.dtype,
        )
        for spec in runner.inputs
    }

    for array in runner(inputs).values():
        assert np.isfinite(array).all()


@pytest.mark.slow
def test_an_engine_is_compiled_for_every_shape_of_the_profile(tiny_sd, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    result = qdx.export(
        tiny_sd,
        target="rtx-ada",
        plan="float16",
        output=tmp_path / "x",
        call=CALL,
        shapes="dynamic",
    )

    assert sorted(result.engines) == ["text_encoder", "unet", "vae_decoder"]
    for folder, record in result.engines.items():
        (profile,) = record.recipe.profiles
        layers = read_layers(tmp_path / "x" / folder, record)
        for shapes in profile.values():
            assert f"MaxShape: [{','.join(map(str, shapes.largest))}]" in layers


def test_a_shape_that_the_model_cannot_have_is_refused(bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path / "unet"
    shutil.copytree(bundle.path / "unet", folder)
    recipe = read_recipe(folder)
    own = {"flavour": "tensorrt-rtx", "versions": ">=1.7,<2", "profiles": ()}
    bad = recipe.model_copy(update=own)
    (folder / "build.json").write_bytes(bad.to_json())

    with pytest.raises(InvalidBundle, match="no profile for the open sizes of"):
        produce_ahead(folder)
