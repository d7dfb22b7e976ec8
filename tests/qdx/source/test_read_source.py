"""A bundle's model is read in the variants that the bundle was made from."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from qdx.exporter.errors import InvalidModel
from qdx.source.same_model import read_source
from tests.support.tiny import build


def manifest_of(*files):
    return SimpleNamespace(source=SimpleNamespace(files=dict.fromkeys(files, "0")), setup=())


@pytest.fixture
def model(tmp_path):
    folder = build("ddpm", tmp_path / "ddpm")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "bf16"):
        shutil.copy(file, file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    return folder


@pytest.mark.parametrize(("mark", "variant"), [("", ""), (".fp16", "fp16"), (".bf16", "bf16")])
def test_the_variant_is_the_bundles_own(model, mark, variant):
    manifest = manifest_of("model_index.json", f"unet/diffusion_pytorch_model{mark}.safetensors")

    assert read_source(manifest, model).components["unet"].variant == variant


def test_another_variant_than_the_bundles_is_refused(model):
    manifest = manifest_of("unet/diffusion_pytorch_model.fp16.safetensors")

    assert read_source(manifest, model, variant="fp16").components["unet"].variant == "fp16"
    with pytest.raises(InvalidModel, match="not exported from weights of variant `bf16`"):
        read_source(manifest, model, variant="bf16")
