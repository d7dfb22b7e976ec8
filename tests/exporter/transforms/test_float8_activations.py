"""Activations in floats of 8 and 4 bits: the greatest magnitude becomes the greatest value."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.exporter.errors import InvalidInput
from qdx.exporter.plan.schema.scheme import Inputs
from qdx.exporter.transforms.activations import activation_quantization, in_sixteen_bits
from qdx.exporter.transforms.placement import ActivationQuantization


class Recorded:
    def range(self, observer, *, percentile=None, bits=8, symmetric=False, groups=None):
        del percentile, bits, groups
        assert (observer, symmetric) == ("minmax", True)
        return (-8.96, 4.0)


@pytest.mark.parametrize("signed", [True, False])
def test_the_scale_is_the_greatest_magnitude_over_448(signed):
    scheme = Inputs(dtype="float8_e4m3fn")
    found = activation_quantization([(None, scheme)], Recorded(), (), signed=signed, symmetric=True)

    assert found == ActivationQuantization("float8_e4m3fn", pytest.approx(0.02, rel=1e-7), 0)


def in_blocks(dtype):
    scheme = Inputs(dtype=dtype, granularity="block", mode="dynamic")
    ranges = Recorded() if scheme.calibrated else None
    return activation_quantization([(None, scheme)], ranges, (), signed=True, symmetric=True)


def test_the_scale_of_a_tensor_in_nvfp4_leaves_room_for_those_of_blocks():
    found = in_blocks("nvfp4")

    assert found == ActivationQuantization("nvfp4", pytest.approx(8.96 / (6 * 448), rel=1e-7), 0)
    assert in_sixteen_bits(found, torch.float16, "it") == found  # it stays in float32


def test_mxfp8_needs_no_range():
    assert in_blocks("mxfp8") == ActivationQuantization("mxfp8", 1.0, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scale_is_one_of_the_type_or_refused(dtype):
    found = in_sixteen_bits(ActivationQuantization("int8", 0.0123, 0), dtype, "it")

    assert found.scale == torch.tensor(0.0123).to(dtype).item() != 0.0123
    for scale in (torch.finfo(dtype).smallest_normal * 1e-4, math.inf):
        with pytest.raises(InvalidInput, match=f"not representable in {str(dtype)[6:]}\n"):
            in_sixteen_bits(ActivationQuantization("int8", scale, 0), dtype, "it")
