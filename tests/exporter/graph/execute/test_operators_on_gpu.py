"""What the operators of quantized graphs compute, they compute where their tensors lie."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.formats.block_floats import Mxfp8, quantize_mxfp8, quantize_nvfp4
from qdx.exporter.graph.ir import operators
from tests.support.fake_gpu import GPU, MIXED, no_values
from tests.support.fake_indexing import ByOperators


def _there(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=GPU)


def _lut(groups: int) -> torch.Tensor:
    tables = torch.empty(groups, 16, device=GPU)
    return operators.lut._init_fn(_there(8, 4, dtype=torch.uint8), tables, 0, 4)


OPERATORS = {
    "quantize_tensor": lambda: operators.quantize_tensor._init_fn(_there(3, 4), 0.1, 2, "int8"),
    "float8": lambda: operators.quantize_tensor._init_fn(_there(3, 4), 0.1, 0, "float8_e4m3fn"),
    "dequantize_tensor": lambda: operators.dequantize_tensor._init_fn(_there(3, 4, dtype=torch.int8), 0.1, 2),
    "quantize": lambda: operators.quantize._init_fn(_there(4, 8), _there(4), _there(4, dtype=torch.int8), 0, 0, "int8"),
    "quantize blocks": lambda: operators.quantize._init_fn(_there(4, 8), _there(4, 2), None, 1, 4, "int4"),
    "dequantize": lambda: operators.dequantize._init_fn(_there(4, 8, dtype=torch.int8), _there(4, 2), None, 1, 4, "int4"),
    "lut": lambda: _lut(1),
    "lut of groups": lambda: _lut(4),
    "mxfp8": lambda: Mxfp8(_there(2, 64, dtype=torch.float8_e4m3fn), _there(2, 2, dtype=torch.uint8)).dequantized(),
    "quantize_mxfp8": lambda: quantize_mxfp8(_there(2, 64)).elements,
    "quantize_nvfp4": lambda: quantize_nvfp4(_there(2, 64), torch.empty((), device=GPU)).elements,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_computes_where_its_tensors_lie(name):
    with no_values(), ByOperators():
        assert OPERATORS[name]().device == GPU


def test_a_table_that_lies_elsewhere_is_an_error():
    with no_values(), ByOperators(), pytest.raises(Exception, match=MIXED):
        operators.lut._init_fn(_there(8, 4, dtype=torch.uint8), torch.empty(4, 16), 0, 4)
