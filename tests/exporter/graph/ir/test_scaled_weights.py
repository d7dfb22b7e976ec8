"""Weights in 8-bit floats with scales beside them are read as the products of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import bind_weights

_EIGHT_BITS = torch.float8_e4m3fn


def _read(stored: dict[str, torch.Tensor], folder: Path, *, inputs: int = 6) -> torch.Tensor:
    """The weight of a linear layer without bias, of as many outputs as are stored."""
    save_file(stored, folder / "model.safetensors")
    module = nn.Sequential(nn.Linear(inputs, stored["0.weight"].shape[0], bias=False))
    return bind_weights(module, open_checkpoint(folder), component="unet")["0.weight"].read()


def _numbers(*shape: int) -> torch.Tensor:
    values = torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.float32)
    return (values % 15 - 7).reshape(shape).to(_EIGHT_BITS)


@pytest.mark.parametrize("name", ["0.weight_scale", "0.weight_scale_inv", "0.scale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_scale_multiplies_the_whole_weight(tmp_path, name, shape):
    numbers = _numbers(4, 6)

    found = _read({"0.weight": numbers, name: torch.full(shape, 0.25)}, tmp_path)

    assert found.dtype == torch.float32
    assert torch.equal(found, numbers.float() * 0.25)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_each_output_channel_has_its_scale(tmp_path, shape):
    numbers, scales = _numbers(4, 6), torch.tensor([0.5, 1.0, 2.0, 4.0])

    found = _read({"0.weight": numbers, "0.weight_scale": scales.reshape(shape)}, tmp_path)

    assert torch.equal(found, numbers.float() * scales[:, None])


def test_each_block_has_its_scale_and_the_last_ones_may_be_smaller(tmp_path):
    numbers, scales = _numbers(160, 300), torch.arange(1.0, 7.0).reshape(2, 3)

    found = _read({"0.weight": numbers, "0.weight_scale_inv": scales}, tmp_path, inputs=300)

    spread = scales.repeat_interleave(128, 0)[:160].repeat_interleave(128, 1)[:, :300]
    assert torch.equal(found, numbers.float() * spread)


def test_a_scale_of_a_convolution_has_its_channels(tmp_path):
    numbers, scales = _numbers(2, 3, 3, 3), torch.tensor([0.5, 2.0])
    save_file({"weight": numbers, "weight_scale": scales}, tmp_path / "model.safetensors")
    module = nn.Conv2d(3, 2, 3, bias=False)

    found = bind_weights(module, open_checkpoint(tmp_path), component="unet")["weight"].read()

    assert torch.equal(found, numbers.float() * scales[:, None, None, None])


def test_a_scale_of_another_layout_is_refused(tmp_path):
    with pytest.raises(InvalidModel, match=r"scale `0.weight_scale` has shape \[6\]"):
        _read({"0.weight": _numbers(4, 6), "0.weight_scale": torch.ones(6)}, tmp_path)


def test_marks_and_scales_of_inputs_change_no_weight(tmp_path):
    numbers = _numbers(4, 6)
    stored = {
        "0.weight": numbers,
        "0.weight_scale": torch.tensor(0.5),
        "0.input_scale": torch.tensor(3.0),
        "0.comfy_quant": torch.frombuffer(
            bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8
        ),
        "scaled_fp8": torch.empty(0, dtype=_EIGHT_BITS),
    }

    assert torch.equal(_read(stored, tmp_path), numbers.float() * 0.5)


def test_a_mark_without_the_scale_that_it_promises_is_refused(tmp_path):
    stored = {"0.weight": _numbers(4, 6), "scaled_fp8": torch.empty(0, dtype=_EIGHT_BITS)}

    with pytest.raises(InvalidModel, match="scaled_fp8"):
        _read(stored, tmp_path)


def test_a_mark_of_another_format_is_refused(tmp_path):
    mark = torch.frombuffer(bytearray(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    stored = {"0.weight": _numbers(4, 6), "0.comfy_quant": mark}

    with pytest.raises(InvalidModel, match="quantized in a way that qdx does not read"):
        _read(stored, tmp_path)


def test_a_scale_beside_a_weight_of_sixteen_bits_is_refused(tmp_path):
    stored = {"0.weight": torch.ones(4, 6).half(), "0.weight_scale": torch.tensor(0.5)}

    with pytest.raises(InvalidModel, match=r"takes tensor `0\.weight_scale`"):
        _read(stored, tmp_path)


def test_a_scale_that_makes_a_weight_infinite_is_refused_when_it_is_read(tmp_path):
    stored = {"0.weight": _numbers(4, 6), "0.weight_scale": torch.tensor(3e38)}

    with pytest.raises(InvalidModel, match="NaN or infinite"):
        _read(stored, tmp_path)
