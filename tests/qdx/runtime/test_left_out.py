"""Components that a bundle leaves out come from the model it was made from, and from no other."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from qdx.bundle.reader import read_bundle
from qdx.compile.export import export
from qdx.exporter.errors import InvalidBundle, InvalidModel
from qdx.runtime.pipeline import open_skeleton
from tests.support.smallest import build_smallest_stable_diffusion


@pytest.fixture(scope="module")
def bundle(tiny_sd, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("left-out") / "bundle"
    export(tiny_sd, target="onnxruntime", plan="float32", output=folder, components=["vae"])
    return read_bundle(folder)


def test_the_model_it_was_made_from_is_taken(bundle, tiny_sd):
    skeleton = open_skeleton(bundle, model=tiny_sd)

    assert bundle.manifest.left_out == ("text_encoder", "unet")
    assert not any(p.is_meta for p in skeleton.modules["unet"].parameters())


def test_the_weights_of_another_model_are_refused(bundle, tmp_path):
    other = build_smallest_stable_diffusion(tmp_path / "other", seed=1)

    with pytest.raises(InvalidModel, match=r"text_encoder.*expected .* by the bundle"):
        open_skeleton(bundle, model=other)


def test_what_the_bundle_itself_holds_is_not_asked_of_the_model(bundle, tiny_sd, tmp_path):
    model = shutil.copytree(tiny_sd, tmp_path / "model")
    (weights,) = (model / "vae").glob("*.safetensors")
    weights.unlink()

    open_skeleton(bundle, model=model)


def altered(bundle, **changes):
    return replace(bundle, manifest=bundle.manifest.model_copy(update=changes))


@pytest.mark.parametrize("name", ["toaster", "scheduler"])
def test_a_name_outside_the_pipeline_is_refused(bundle, tiny_sd, name):
    held = altered(bundle, components={name: bundle.manifest.components["vae"]})
    left_out = altered(bundle, left_out=(*bundle.manifest.left_out, name))

    for wrong in (held, left_out):
        with pytest.raises(InvalidBundle, match=name):
            open_skeleton(wrong, model=tiny_sd)


def test_a_name_outside_a_whole_bundle_is_refused(smallest, tmp_path):
    pytest.importorskip("onnxruntime")
    export(smallest, target="onnxruntime", plan="float32", output=tmp_path / "bundle")
    whole = read_bundle(tmp_path / "bundle")
    components = {**whole.manifest.components, "toaster": whole.manifest.components["unet"]}

    open_skeleton(whole)
    with pytest.raises(InvalidBundle, match="`toaster` is not a component"):
        open_skeleton(altered(whole, components=components))
