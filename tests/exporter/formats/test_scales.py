"""Scale and zero point of a range: zero is exact, and the scale is a usable float32."""

from __future__ import annotations

import math
import struct
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qdx.exporter.dtypes import INPUT_DTYPES, number_type
from qdx.exporter.errors import InternalError
from qdx.exporter.formats.scales import SMALLEST_SCALE, choose_qparams

QUANTIZED = sorted({*INPUT_DTYPES} - {"float32"})
FLOATS = st.floats(-3e38, 3e38, allow_nan=False)


@given(FLOATS, FLOATS, st.sampled_from(QUANTIZED), st.booleans())
@example(0.0, 0.0, "int8", True)
@example(1e-45, 2e-45, "uint8", False)
@example(-3e38, 3e38, "int4", False)
def test_the_range_and_zero_are_representable(one, other, name, symmetric) -> None:
    low, high = min(one, other), max(one, other)
    dtype = number_type(name)
    qparams = choose_qparams(low, high, name, symmetric=symmetric)
    scale, zero = qparams.scale, qparams.zero_point
    assert dtype.minimum <= zero <= dtype.maximum
    assert math.isfinite(scale)
    assert scale >= SMALLEST_SCALE
    assert struct.unpack("f", struct.pack("f", scale))[0] == scale
    # Half a step of rounding at the zero point, and the scale's own rounding.
    slack = scale * (0.5 + dtype.maximum * 2**-22)
    assert (dtype.maximum - zero) * scale >= max(high, 0) - slack
    assert (dtype.minimum - zero) * scale <= min(low, 0) + slack


def test_known_values() -> None:
    assert choose_qparams(-1, 2, "int8", symmetric=True).scale == pytest.approx(2 / 127)
    assert choose_qparams(-1, 2, "int8", symmetric=True).zero_point == 0
    assert choose_qparams(-1, 2, "uint8", symmetric=True).scale == pytest.approx(2 / 127)
    assert choose_qparams(-1, 2, "uint8", symmetric=True).zero_point == 128
    assert choose_qparams(-1, 2, "uint8", symmetric=False).scale == pytest.approx(3 / 255)
    assert choose_qparams(-1, 2, "uint8", symmetric=False).zero_point == 85
    assert choose_qparams(-1, 2, "int8", symmetric=False).zero_point == 85 - 128
    assert choose_qparams(-14, 1, "int4", symmetric=True).scale == 2.0
    assert choose_qparams(0, 31, "uint5", symmetric=False) == choose_qparams(
        5, 31, number_type("uint5"), symmetric=False
    )
    assert choose_qparams(0, 31, "uint5", symmetric=False).scale == 1.0
    assert choose_qparams(0, 896, "float8_e4m3fn", symmetric=False).scale == 2.0
    assert choose_qparams(0, 0, "int8", symmetric=False).scale == 1.0


@pytest.mark.parametrize(("low", "high"), [(1, 0), (math.nan, 1), (0, math.inf), (-math.inf, 0)])
def test_what_is_no_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(InternalError, match="is not a range"):
        choose_qparams(low, high, "int8", symmetric=True)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InternalError, match="`int7` is not a number type"):
        number_type("int7")


def test_no_torch_is_imported() -> None:
    code = "import sys, qdx.exporter.formats.scales; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
