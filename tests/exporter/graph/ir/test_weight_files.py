"""The files of a component's weights are found: unmarked, of the only variant, or of the variant that is chosen."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weight_files import find_weights, variant_of, variants_in


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("variant", ["fp16", "bf16", "fp32", "non_ema", "ema-only"])
@pytest.mark.parametrize(
    "name",
    [
        "model.{}.safetensors",
        "diffusion_pytorch_model.{}.safetensors",
        "model.safetensors.index.{}.json",
        "diffusion_pytorch_model.{}.safetensors.index.json",
    ],
)
def test_the_only_variant_is_taken(tmp_path, name, variant):
    touch(tmp_path, name.format(variant), f"model.{variant}-00001-of-00002.safetensors")

    found = find_weights(tmp_path)

    assert (found.name, found.variant) == (name.format(variant), variant)
    assert found.is_index == ("index" in name)


def test_unmarked_weights_come_before_variants(tmp_path):
    touch(tmp_path, "model.safetensors", "model.fp16.safetensors", "model.non_ema.safetensors")

    assert find_weights(tmp_path).name == "model.safetensors"
    assert find_weights(tmp_path, "non_ema").name == "model.non_ema.safetensors"
    assert variants_in(tmp_path) == ("", "fp16", "non_ema")


def test_of_several_variants_one_is_to_be_chosen(tmp_path):
    touch(tmp_path, "model.fp16.safetensors", "model.bf16.safetensors")

    with pytest.raises(InvalidModel, match=r"`model\.bf16\.safetensors`, `model\.fp16") as caught:
        find_weights(tmp_path)

    assert "--variant bf16" in caught.value.hint
    assert find_weights(tmp_path, "fp16").name == "model.fp16.safetensors"
    with pytest.raises(InvalidModel, match="no weights of variant `fp8`"):
        find_weights(tmp_path, "fp8")


def test_a_component_without_the_chosen_variant_is_read_unmarked(tmp_path):
    touch(tmp_path, "model.safetensors", "model.bf16.safetensors")

    assert find_weights(tmp_path, "fp16").name == "model.safetensors"


def test_shards_and_others_are_no_weights_by_themselves():
    assert variant_of("model-00001-of-00002.safetensors") is None
    assert variant_of("model.fp16-00001-of-00002.safetensors") is None
    assert variant_of("adapter_model.safetensors") is None
    assert variant_of("model.safetensors") == ""


def test_shards_of_a_variant_with_its_mark_before_the_ending(tmp_path):
    shard = "diffusion_pytorch_model.bf16-00001-of-00001.safetensors"
    save_file({"a": torch.ones(2)}, tmp_path / shard)
    index = tmp_path / "diffusion_pytorch_model.bf16.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))

    assert open_checkpoint(tmp_path).files == [index, tmp_path / shard]


@pytest.mark.parametrize(
    ("name", "words", "way_out"),
    [
        ("adapter_model.safetensors", "without the weights that it adapts", "fuse_lora()"),
        ("model.bin", "holds `model.bin`", "safe_serialization=True"),
        ("flux1-Q4_K.gguf", "holds `flux1-Q4_K.gguf`", "quantized already"),
        ("weights.safetensors", "holds `weights.safetensors`", "one of these names"),
        ("README.md", "no weights", "fetch it again"),
    ],
)
def test_what_is_there_instead_is_named_with_the_way_out(tmp_path, name, words, way_out):
    with pytest.raises(InvalidModel) as caught:
        find_weights(touch(tmp_path, name))

    assert words in caught.value.message
    assert way_out in caught.value.hint
