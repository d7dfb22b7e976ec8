"""Skeletons: a pipeline of any size is built without its weights, and with nothing that data could have asked for."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import SiglipVisionConfig, SiglipVisionModel

from qdx.exporter.capture.folder import read_pipeline_folder, resolve_class
from qdx.exporter.capture.skeleton import build_skeleton, fake_parameters
from qdx.exporter.capture.watched_mode import WatchedMode
from qdx.exporter.errors import InvalidModel
from tests.support.tiny import build


def test_parameters_are_fake_and_computed_buffers_are_real(tmp_path: Path) -> None:
    skeleton = build_skeleton(read_pipeline_folder(build("pixart", tmp_path / "pixart")))

    transformer = skeleton.modules["transformer"]
    assert all(isinstance(parameter, FakeTensor) for parameter in transformer.parameters())
    table = transformer.get_buffer("pos_embed.pos_embed")
    assert not isinstance(table, FakeTensor)
    assert float(table.abs().sum()) > 0


def test_components_can_be_cast_though_torch_has_cached_nothing(tmp_path: Path) -> None:
    FakeTensorMode.cache_clear()
    vae = build_skeleton(read_pipeline_folder(build("sdxl-img2img", tmp_path))).modules["vae"]

    for dtype in (torch.float32, torch.float16):
        vae.to(dtype=dtype)
        assert {p.dtype for p in vae.parameters()} == {dtype}


def test_a_model_whose_initialization_would_read_weights_is_built() -> None:
    config = SiglipVisionConfig(
        image_size=28, patch_size=14, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    with fake_parameters(WatchedMode()), torch.no_grad():
        module = SiglipVisionModel(config)
    assert all(isinstance(parameter, FakeTensor) for parameter in module.parameters())


def test_no_weight_file_is_opened(tmp_path: Path) -> None:
    folder = build("ddpm", tmp_path / "ddpm")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    assert build_skeleton(read_pipeline_folder(folder)).modules["unet"]


def test_a_model_larger_than_memory_is_built_in_a_few_megabytes(tmp_path: Path) -> None:
    folder = build("flux", tmp_path / "flux")
    config = folder / "transformer" / "config.json"
    text = config.read_text().replace('"num_attention_heads": 2', '"num_attention_heads": 256')
    text = text.replace('"num_layers": 1', '"num_layers": 16')
    config.write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    skeleton = build_skeleton(read_pipeline_folder(folder))

    elements = sum(parameter.numel() for parameter in skeleton.modules["transformer"].parameters())
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert elements * 4 > 30 << 30
    assert grown_bytes < 1 << 30


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("os", "system"),
        ("subprocess", "Popen"),
        ("torch", "Tensor"),
        ("diffusers", "utils"),
        ("diffusers", "logging"),
        ("transformers", "pipeline"),
        ("my_unet", "MyUNet"),
    ],
)
def test_only_classes_of_diffusers_and_transformers_are_found(library: str, name: str) -> None:
    with pytest.raises(InvalidModel):
        resolve_class(library, name, where="`model_index.json`")


def test_building_leaves_torch_as_it_was(tmp_path: Path) -> None:
    build_skeleton(read_pipeline_folder(build("ddpm", tmp_path / "ddpm")))
    assert not isinstance(torch.nn.Linear(2, 2).weight, FakeTensor)
