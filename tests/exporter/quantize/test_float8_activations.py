"""Activations in 8-bit floats: the greatest magnitude becomes the greatest value."""

from __future__ import annotations

import pytest

from qdx.exporter.plan.scheme import Inputs
from qdx.exporter.quantize.activations import activation_quantization
from qdx.exporter.quantize.placement import ActivationQuantization


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
