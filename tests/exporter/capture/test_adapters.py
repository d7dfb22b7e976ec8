"""Adapters find their layers, are added as diffusers adds them, and are refused by name where they have none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qdx.exporter.capture.adapters import LoraFile, parse_lora, read_adapters
from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.deltas import merged
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import InvalidInput, UsageError
from qdx.exporter.graph.ir.weights import bind_weights
from tests.support.loras import random_pairs, write_kohya, write_lora
from tests.support.smallest import build_smallest, build_smallest_text_to_image

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_smallest_text_to_image(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", name="skeleton")
def _skeleton(model: Path):
    return build_skeleton(read_pipeline_folder(model))


def weights_of(skeleton, component: str, adapters=None):
    module = skeleton.modules[component]
    checkpoint = open_weights(skeleton.folder.components[component])
    weights = bind_weights(module, checkpoint, component=component)
    return weights if adapters is None else merged(weights, adapters.layers.get(component, {}))


def check(skeleton, component: str, adapters, pairs, factor: float) -> None:
    """Every weight with a pair is the sum, and every other is as it was."""
    plain, found = (
        weights_of(skeleton, component),
        weights_of(skeleton, component, adapters),
    )
    assert len(pairs) > 0
    for name in plain:
        expected = plain[name].read()
        if name.removesuffix(".weight") in pairs and name.endswith(".weight"):
            down, up = pairs[name.removesuffix(".weight")]
            product = torch.einsum("or,r...->o...", up.flatten(1), down)
            expected = expected + factor * product
        torch.testing.assert_close(found[name].read(), expected, atol=1e-6, rtol=1e-6)


def test_linear_layers_and_convolutions_are_added_to(skeleton, tmp_path: Path) -> None:
    pairs = random_pairs(
        skeleton.modules["unet"], (*ATTENTION, "conv1", "proj_in", "time_emb_proj")
    )
    file = write_lora(tmp_path / "lora.safetensors", unet=pairs)

    adapters = read_adapters([LoraFile(file, 0.75)], skeleton)

    check(skeleton, "unet", adapters, pairs, 0.75)


def test_files_add_up_in_order(skeleton, tmp_path: Path) -> None:
    pairs = random_pairs(skeleton.modules["unet"], ATTENTION)
    file = write_lora(tmp_path / "lora.safetensors", unet=pairs)

    adapters = read_adapters([LoraFile(file, 0.5), LoraFile(file, -0.25)], skeleton)

    check(skeleton, "unet", adapters, pairs, 0.25)
    assert len(set(adapters.digests.values())) == 1
    assert len(adapters.digests) == 2


def test_kohyas_names_and_alphas_are_read_as_diffusers_reads_them(skeleton, tmp_path: Path) -> None:
    unet = random_pairs(skeleton.modules["unet"], ATTENTION)
    words = random_pairs(skeleton.modules["text_encoder"], ("q_proj", "v_proj", "fc1"))
    names = {f"text_model.{layer}": value for layer, value in words.items()}
    file = write_kohya(tmp_path / "lora.safetensors", 2.0, lora_unet=unet, lora_te=names)

    adapters = read_adapters([LoraFile(file)], skeleton)

    check(skeleton, "unet", adapters, unet, 2.0 / 4)
    check(skeleton, "text_encoder", adapters, words, 2.0 / 4)


def test_weights_in_sixteen_bits_are_added_to_in_float32(skeleton, tmp_path: Path) -> None:
    pairs = random_pairs(skeleton.modules["unet"], ("to_q",))
    halves = {layer: (down.half(), up.half()) for layer, (down, up) in pairs.items()}
    file = write_lora(tmp_path / "lora.safetensors", unet=halves)

    adapters = read_adapters([LoraFile(file)], skeleton)

    exact = {layer: (down.float(), up.float()) for layer, (down, up) in halves.items()}
    check(skeleton, "unet", adapters, exact, 1.0)


def changed(path: Path, rename) -> Path:
    save_file({rename(n): t for n, t in load_file(path).items()}, path)
    return path


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("lora_A.weight", "lora_magnitude_vector", "DoRA"),
        ("lora_A.weight", "lokr_w1", "LoKr"),
        (".attn1.", ".attn7.", "is no layer of it"),
        ("unet.", "prior.", "for no component"),
        ("lora_A.weight", "lora_A.bias", "no part of a pair"),
    ],
)
def test_what_has_no_target_is_refused_by_name(
    skeleton, tmp_path: Path, old: str, new: str, named: str
) -> None:
    pairs = random_pairs(skeleton.modules["unet"], ("attn1.to_q",))
    file = write_lora(tmp_path / "lora.safetensors", unet=pairs)
    changed(file, lambda name: name.replace(old, new))

    with pytest.raises(InvalidInput, match=named):
        read_adapters([LoraFile(file)], skeleton)


def test_a_pair_of_another_shape_is_refused(skeleton, tmp_path: Path) -> None:
    pairs = random_pairs(skeleton.modules["unet"], ("attn1.to_q",))
    wrong = {layer: (down[:, :-1], up) for layer, (down, up) in pairs.items()}
    file = write_lora(tmp_path / "lora.safetensors", unet=wrong)

    with pytest.raises(InvalidInput, match=r"attn1\.to_q` has a weight of .* and the pair is"):
        read_adapters([LoraFile(file)], skeleton)


def test_numbers_that_are_not_finite_are_refused(skeleton, tmp_path: Path) -> None:
    pairs = random_pairs(skeleton.modules["unet"], ("attn1.to_q",))
    file = write_lora(
        tmp_path / "lora.safetensors", unet={k: (a * math.nan, b) for k, (a, b) in pairs.items()}
    )

    with pytest.raises(InvalidInput, match=r"NaN|finite"):
        read_adapters([LoraFile(file)], skeleton)


def test_files_that_can_hold_code_are_refused(skeleton, tmp_path: Path) -> None:
    (tmp_path / "lora.bin").write_bytes(b"")

    with pytest.raises(InvalidInput, match="no safetensors file"):
        read_adapters([LoraFile(tmp_path / "lora.bin")], skeleton)


def test_pipelines_without_adapters_are_refused(tmp_path: Path) -> None:
    skeleton = build_skeleton(read_pipeline_folder(build_smallest(tmp_path / "model")))
    file = write_lora(tmp_path / "a.safetensors", unet={"x": (torch.ones(1, 1), torch.ones(1, 1))})

    with pytest.raises(UsageError, match="diffusers loads no LoRA into DDPMPipeline"):
        read_adapters([LoraFile(file)], skeleton)


def test_a_file_is_given_with_a_scale_or_without() -> None:
    assert parse_lora("a.safetensors") == LoraFile(Path("a.safetensors"), 1.0)
    assert parse_lora("a.safetensors:-0.5") == LoraFile(Path("a.safetensors"), -0.5)
    assert parse_lora("C:a.safetensors") == LoraFile(Path("C:a.safetensors"), 1.0)
    with pytest.raises(UsageError, match="finite"):
        parse_lora("a.safetensors:nan")
