"""torch's table of translations is built once, and what an export adds to it stays with that export."""

from __future__ import annotations

import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from qdx.backends.onnx.registry import registry_built_once

_ADD = torch.ops.aten.add.Tensor


def _own(x, y):
    return x


def test_every_export_has_a_table_of_its_own():
    with registry_built_once():
        one = ONNXRegistry.from_torchlib(opset_version=18)
        plain = one.get_decomps(_ADD)
        one.register_op(_ADD, _own)
        other = ONNXRegistry.from_torchlib(opset_version=18)

    assert one.get_decomps(_ADD)[0].onnx_function is _own
    assert other.get_decomps(_ADD) == plain
    assert other.get_decomps(_ADD)[0] is plain[0]  # not built again
    assert (one.opset_version, other.opset_version) == (18, 18)


def test_it_is_the_table_that_torch_builds():
    built = ONNXRegistry.from_torchlib(opset_version=20)
    with registry_built_once():
        found = ONNXRegistry.from_torchlib(opset_version=20)

    assert found.functions.keys() == built.functions.keys()
    assert {target: len(one) for target, one in found.functions.items()} == {
        target: len(one) for target, one in built.functions.items()
    }
    assert ONNXRegistry.from_torchlib(opset_version=20).functions is not built.functions
