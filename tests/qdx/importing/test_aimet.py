"""Encodings of AIMET, in the shapes of its three versions: the same integers, scales and zero points."""

from __future__ import annotations

import json

import pytest
import torch

from qdx.exporter.errors import InvalidInput
from qdx.exporter.formats.given import check_parts, values_of
from qdx.exporter.graph.ir.weights import LazyWeight
from qdx.importing.result_aimet import read_aimet

WEIGHT = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
KNOWN = {"a.to_q.weight": LazyWeight("a.to_q.weight", (4, 32), torch.float32, lambda: WEIGHT)}
SCALES = [0.02, 0.03, 0.025, 0.01]


def old(bits, offsets):
    """Version 0.6.1."""
    channels = [
        {"bitwidth": bits, "dtype": "int", "is_symmetric": "True", "min": s * o, "max": s * (o + 2**bits - 1), "scale": s, "offset": o}
        for s, o in zip(SCALES, offsets, strict=True)
    ]  # fmt: skip
    return {"version": "0.6.1", "activation_encodings": {}, "param_encodings": {"a.to_q.weight": channels}, "quantizer_args": {}}  # fmt: skip


def listed(bits, offsets, **extra):
    """Version 1.0.0."""
    one = {"name": "a.to_q.weight", "dtype": "INT", "enc_type": "PER_CHANNEL", "is_sym": True, "bw": bits, "scale": SCALES, "offset": offsets, **extra}  # fmt: skip
    return {"version": "1.0.0", "activation_encodings": [], "param_encodings": [one]}


def onnx(bits, zeros):
    """Version 2.0.0."""
    one = {"name": "a.to_q.weight", "output_dtype": f"int{bits}", "y_scale": SCALES, "y_zero_point": zeros, "axis": 0}  # fmt: skip
    return {"version": "2.0.0", "encodings": [one, {"name": "onnx::tensor_1", "output_dtype": "uint8", "y_scale": 0.1}]}  # fmt: skip


def read(tmp_path, value):
    path = tmp_path / "m.encodings"
    path.write_text(json.dumps(value))
    return read_aimet(path, KNOWN)


def theirs(bits, offsets):
    """The value that AIMET simulates: (clamp(round(w / s) - o, 0, 2^b - 1) + o) * s."""
    scale, offset = torch.tensor(SCALES)[:, None], torch.tensor(offsets)[:, None]
    return (((WEIGHT / scale).round() - offset).clamp(0, 2**bits - 1) + offset) * scale


@pytest.mark.parametrize("bits", [8, 4])
def test_the_three_versions_say_the_same(tmp_path, bits):
    offsets = [-(2 ** (bits - 1))] * 4
    for value in (old(bits, offsets), listed(bits, offsets), onnx(bits, [0, 0, 0, 0])):
        found = read(tmp_path, value)
        one = found.weights["a.to_q.weight"]

        check_parts((4, 32), one.quantization, one.parts)
        assert (one.quantization.dtype, one.quantization.symmetric) == (f"int{bits}", True)
        assert torch.equal(values_of(one), theirs(bits, offsets))
        assert found.findings == []


def test_other_offsets_are_zero_points(tmp_path):
    offsets = [-100, -128, -3, 0]
    one = read(tmp_path, old(8, offsets)).weights["a.to_q.weight"]

    assert one.parts[".zero_point"].tolist() == [-28, 0, -125, -128]
    assert torch.equal(values_of(one), theirs(8, offsets))


def test_scales_of_blocks(tmp_path):
    value = listed(4, [-8] * 8, block_size=16, enc_type="PER_BLOCK", scale=[0.1, 0.2] * 4)
    one = read(tmp_path, value).weights["a.to_q.weight"]

    check_parts((4, 32), one.quantization, one.parts)
    assert (one.quantization.block, one.parts[".scale"].tolist()[0]) == (16, pytest.approx([0.1, 0.2]))  # fmt: skip


def test_what_cannot_be_carried_is_told(tmp_path):
    value = old(8, [-128] * 4)
    value["param_encodings"]["onnx::MatMul_7"] = value["param_encodings"]["a.to_q.weight"]
    value["activation_encodings"] = {"t": [{"bitwidth": 8, "dtype": "int", "scale": 1.0, "offset": 0}]}  # fmt: skip
    found = read(tmp_path, value)

    assert [one.verdict for one in found.findings] == ["refused", "refused"]
    assert "`onnx::MatMul_7` is no parameter" in found.findings[0].words
    assert "encodings of 1 activations" in found.findings[1].words
    assert "16 bits" in read(tmp_path, old(16, [-(2**15)] * 4)).findings[0].words
    assert "3 scales" in read(tmp_path, listed(8, [-128] * 3, scale=[1.0] * 3)).findings[0].words


@pytest.mark.parametrize(
    "value",
    [
        {"version": "9.0"},
        {"version": 1},
        {},
        {"version": "0.6.1", "param_encodings": []},
        {"version": "0.6.1", "param_encodings": {"a": []}},
        {"version": "1.0.0", "param_encodings": {"a": 1}},
        {"version": "1.0.0", "param_encodings": [{"name": "a.to_q.weight", "bw": 8, "scale": "x", "offset": [0]}]},
        {"version": "1.0.0", "param_encodings": [{"name": "a.to_q.weight", "bw": True, "scale": [1], "offset": [0]}]},
        {"version": "2.0.0", "encodings": [{"name": 3}]},
        listed(8, [-128] * 4, compressed_bw=4),
    ],
)  # fmt: skip
def test_another_shape_is_an_error(tmp_path, value):
    with pytest.raises(InvalidInput, match=r"m\.encodings"):
        read(tmp_path, value)
