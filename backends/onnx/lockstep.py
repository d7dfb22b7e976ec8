"""An ONNX file cut open at the quantizers of its inputs; see `qdx.backends.lockstep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qdx.backends.lockstep import Values, quantizer_of, shape_of
from qdx.backends.onnx.package import onnxruntime
from qdx.backends.onnx.session import DATA_FOLDER, Rewrite, session_options
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["OnnxRuntimeLockstep"]

_FUSED_WITH_OUTPUT: Final = "Conv"
"""Its eight-bit kernel needs the quantizer of its result, which is therefore not cut off."""
_GIVEN: Final = "given/"
_QUANTIZERS: Final = ("QuantizeLinear", "DynamicQuantize")
"""How the names of operators end that quantize."""


class OnnxRuntimeLockstep:
    """One session over all segments."""

    def __init__(
        self,
        model: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        """Opens the model.

        Args:
            model: The model file; external data lies beside it.
            options: As for `OnnxRuntimeRunner`.
            shapes: Shape of each quantizer's input; None for sizes that are open.
            threads: Threads inside an operator; ONNX Runtime's default where None.
            rewrite: What becomes of the model before it is cut; None to leave it.

        Raises:
            InvalidBundle: ONNX Runtime cannot read the model, or it has a quantizer that the graph has not.
        """
        proto = onnx.load(str(model), load_external_data=False)
        if rewrite is not None:
            rewrite(proto)
        self._outputs = [value.name for value in proto.graph.output]
        self._sources = _cut(proto, shapes)
        self.quantizers = tuple(self._sources)
        settings = session_options(options, threads)
        settings.add_session_config_entry(DATA_FOLDER, str(model.parent.resolve()))
        try:
            self._session = onnxruntime().InferenceSession(
                proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base but Exception
            raise InvalidBundle(
                f"{quoted(model.name)}: ONNX Runtime cannot open it in segments: {error}"
            ) from error

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
    ) -> tuple[Values, Values]:
        """Runs every segment once."""
        given = {_GIVEN + name: values[name] for name in self.quantizers}
        names = [*self._outputs, *dict.fromkeys(self._sources.values())]
        results = dict(zip(names, self._session.run(names, {**inputs, **given}), strict=True))
        own = {
            name: results[source].astype(np.float32, copy=False)
            for name, source in self._sources.items()
        }
        return {name: results[name] for name in self._outputs}, own


def _cut(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, str]:
    """Gives quantizers inputs of their own and the model their sources as outputs; sources by quantizer."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    exposed = {value.name for value in proto.graph.output}
    sources: dict[str, str] = {}
    halves = {one.name for one in proto.graph.initializer if one.data_type == TensorProto.FLOAT16}
    scales: list[tuple[onnx.NodeProto, str]] = []
    for node in proto.graph.node:
        name = quantizer_of(node.name) if node.op_type.endswith(_QUANTIZERS) else None
        if name is None:
            continue
        shape = shape_of(name, shapes)
        producer = producers.get(node.input[0])
        if producer is None or producer.op_type == _FUSED_WITH_OUTPUT:
            continue
        sources[name] = node.input[0]
        if node.input[0] not in exposed:
            exposed.add(node.input[0])
            proto.graph.output.append(helper.make_empty_tensor_value_info(node.input[0]))
        kind = helper.make_tensor_value_info(_GIVEN + name, TensorProto.FLOAT, shape)
        proto.graph.input.append(kind)
        node.input[0] = _GIVEN + name
        # Given float32, a quantizer rounds it as the quantized graph does.
        scales += [(node, scale) for scale in node.input[1:2] if scale in halves]
    for node, scale in scales:
        node.input[1] = f"{scale}/float"
    casts = dict.fromkeys(scale for _, scale in scales)
    for scale in reversed(casts):
        cast = helper.make_node("Cast", [scale], [f"{scale}/float"], to=TensorProto.FLOAT)
        proto.graph.node.insert(0, cast)
    return sources
