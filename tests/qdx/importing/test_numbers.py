"""Integers and scales of other tools stand for the values that the tools themselves make of them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qdx.exporter.errors import InvalidInput
from qdx.exporter.formats.given import check_parts, values_of
from qdx.importing.result_gguf import _q3_k, _q6_k
from qdx.importing.results import read_result

MADE = Path(__file__).parent / "made"
READ = {
    "torchao-int8": ("torchao", "int8", "channel"),
    "torchao-int4": ("torchao", "int4", "block"),
    "torchao-float8": ("torchao", "float8_e4m3fn", "channel"),
    "quanto-int8": ("quanto", "int8", "channel"),
    "quanto-float8": ("quanto", "float8_e4m3fn", "channel"),
    "bitsandbytes-int8": ("bitsandbytes", "int8", "channel"),
    "modelopt-fp8": ("scaled", "float8_e4m3fn", "tensor"),
    "modelopt-nvfp4": ("scaled", "nvfp4", "block"),
    "Q8_0.gguf": ("gguf", "int8", "block"),
    "Q4_0.gguf": ("gguf", "int4", "block"),
    "Q5_0.gguf": ("gguf", "int8", "block"),
}
BLOCKS = {
    "torchao-int4": 16,
    "modelopt-nvfp4": 0,
    "Q8_0.gguf": 32,
    "Q4_0.gguf": 32,
    "Q5_0.gguf": 32,
}
REFUSED = {
    "quanto-int4": "zero points are floats",
    "bitsandbytes-nf4": "sixteen fixed values",
    "Q4_1.gguf": "a minimum beside its scale",
}


@pytest.mark.parametrize("name", READ)
def test_values_are_those_of_the_tool(name):
    tool, found = read_result(MADE / name)
    wanted = load_file(MADE / f"{name.removesuffix('.gguf')}-values.safetensors")

    assert (tool, not found.weights) == (READ[name][0], False)
    # Of layers that the tool left alone there are values too.
    assert {key.removesuffix(".weight") for key in found.weights} <= wanted.keys()
    for key, one in found.weights.items():
        values = wanted[key.removesuffix(".weight")]
        check_parts(tuple(values.shape), one.quantization, one.parts)
        # Layers of as many inputs as a block has elements have one scale for each row.
        one_block = READ[name][2] == "block" and values.shape[1] == BLOCKS[name]
        granularity = "channel" if one_block else READ[name][2]
        assert (one.quantization.dtype, one.quantization.granularity) == (
            READ[name][1],
            granularity,
        )
        # One rounding to float32 of a product: of scales that the tool divides when it computes.
        assert torch.allclose(values_of(one), values, rtol=2e-7, atol=0), key


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_target_stores_is_refused_with_the_reason(name):
    _, found = read_result(MADE / name)

    assert not found.weights
    assert found.findings
    assert all(one.verdict == "refused" and REFUSED[name] in one.words for one in found.findings)


@pytest.mark.parametrize(("kind", "reader"), [("Q6_K", _q6_k), ("Q3_K", _q3_k)])
def test_blocks_of_blocks(kind, reader):
    parts = load_file(MADE / "k-quants.safetensors")
    wanted = parts[f"{kind}.values"]
    one = reader(parts[f"{kind}.blocks"].reshape(-1), len(wanted))

    check_parts(tuple(wanted.shape), one.quantization, one.parts)
    assert torch.equal(values_of(one), wanted + 0.0)


def test_scales_of_inputs_are_told():
    _, found = read_result(MADE / "modelopt-fp8")

    assert [(one.verdict, one.place) for one in found.findings] == [("approximate", "input_scale")]


@pytest.mark.parametrize("name", ["Q8_0.gguf", "Q4_0.gguf"])
def test_a_cut_gguf_file_is_refused(name, tmp_path):
    data = (MADE / name).read_bytes()
    path = tmp_path / "cut.gguf"
    for length in range(0, len(data) - 32, 10):  # the last bytes fill up to the alignment
        path.write_bytes(data[:length])
        with pytest.raises(InvalidInput, match=r"cut\.gguf"):
            read_result(path)


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_gguf_file_with_other_bytes_is_refused_or_read(at, tmp_path):
    data = bytearray((MADE / "Q8_0.gguf").read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "other.gguf"
    path.write_bytes(data)
    with contextlib.suppress(InvalidInput):  # and no other error
        read_result(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_pickle_is_refused_unopened(suffix, tmp_path):
    with pytest.raises(InvalidInput, match="a pickle, which is a program"):
        read_result(tmp_path / f"never-written{suffix}")


def test_a_torchao_folder_with_a_part_missing_or_strange(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    source = MADE / "torchao-int8" / "diffusion_pytorch_model.safetensors"
    with safe_open(source, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(source)
    (tmp_path / "config.json").write_text((MADE / "torchao-int8" / "config.json").read_text())
    save_file({k: v for k, v in tensors.items() if not k.endswith("_scale")}, tmp_path / source.name, metadata)  # fmt: skip
    with pytest.raises(InvalidInput, match=r"_weight_scale` is missing"):
        read_result(tmp_path)
    for changed in ('{"_type": 3}', '{"_type": "Int8Tensor"}', '{"_type": "Int8Tensor", "_tensor_data_names": 1}', "{"):  # fmt: skip
        save_file(tensors, tmp_path / source.name, {"format": "pt", "x.weight": changed})
        with pytest.raises(InvalidInput):
            read_result(tmp_path)
    stranger = json.dumps({"_type": "NovelTensor", "_tensor_data_names": ["qdata"], "_data": {}})
    name = next(key for key in metadata if key.endswith(".weight"))
    save_file(tensors, tmp_path / source.name, {name: stranger})
    assert "`NovelTensor`" in read_result(tmp_path)[1].findings[0].words
