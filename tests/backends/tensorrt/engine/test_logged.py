"""What an engine on a device says of its layers is held against the builder's log."""

from __future__ import annotations

import pytest

from qdx.backends.tensorrt.engine.inspect import Layer
from qdx.backends.tensorrt.engine.layer_log import LayerLog, LoggedLayer, LoggedTensor
from qdx.backends.tensorrt.engine.logged import check_logged
from qdx.exporter.errors import InvalidBundle

GEMM = Layer("gemm_myl0_1", "gemm", ("a/MatMul", "b/MatMul"), ("int8",), ("float16",))
FUSED = Layer("fused_myl0_2", "kgen", ("a/Softmax",), ("float16", "float16"), ("float16",))


def logged(*layers):
    """A log that says what these layers say of themselves."""

    def tensors(types):
        return tuple(
            LoggedTensor(f"t{number}", "[2,4]", dtype) for number, dtype in enumerate(types)
        )

    lines = [
        LoggedLayer(one.name, one.kind, tensors(one.inputs), (), tensors(one.outputs), "", one.nodes, number)
        for number, one in enumerate(layers, 1)
    ]  # fmt: skip
    return LayerLog(tuple(lines), 1, 2, 3)


def test_an_engine_that_is_what_the_log_says_passes_in_any_order():
    swapped = Layer("gemm_myl0_1", "gemm", ("b/MatMul", "a/MatMul"), ("int8",), ("float16",))

    check_logged([FUSED, swapped], logged(GEMM, FUSED), "model.engine")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            [Layer("gemm_myl0_1", "gemm", GEMM.nodes, ("float16",), ("float16",)), FUSED],
            "reads float16, writes float16, for 2 nodes; the log: `gemm_myl0_1` is gemm, reads int8",
        ),
        ([GEMM], "0 layers of 1 are not in the log, 1 of 2 in it are not in the engine"),
        ([GEMM, FUSED, FUSED], "1 layers of 3 are not in the log, 0 of 2"),
        ([Layer("gemm_myl0_1", "correlation", GEMM.nodes, ("int8",), ("float16",)), FUSED], "is correlation"),
        ([Layer("gemm_myl0_1", "gemm", ("a/MatMul",), ("int8",), ("float16",)), FUSED], "for 1 nodes"),
    ],
)  # fmt: skip
def test_another_type_kind_node_or_number_of_layers_is_an_error(layers, said):
    with pytest.raises(InvalidBundle) as refused:
        check_logged(layers, logged(GEMM, FUSED), "model.engine")

    assert refused.value.message.startswith(
        "`model.engine`: the engine on this device is not what the log says: "
    )
    assert said in refused.value.message
    assert "qdx build --force" in refused.value.hint
