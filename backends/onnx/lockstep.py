"""An ONNX file cut open at the quantizers of its inputs; see `qdx.backends.lockstep`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from qdx.backends.lockstep import RunChunk, Values, in_order, is_fed, quantizer_of, shape_of
from qdx.backends.lockstep_chunks import Chunk, Flow, Operation
from qdx.backends.onnx.package import onnxruntime
from qdx.backends.onnx.session import DATA_FOLDER, Rewrite, session_options
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["OnnxRuntimeChunks"]

_FUSED_WITH_OUTPUT: Final = "Conv"
"""Its eight-bit kernel needs the quantizer of its result, which is therefore not cut off."""
_GIVEN: Final = "given/"
_QUANTIZERS: Final = ("QuantizeLinear", "DynamicQuantize")
"""How the names of operators end that quantize."""
_DEQUANTIZER: Final = "DequantizeLinear"
_MOVES: Final = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


class OnnxRuntimeChunks:
    """Chunks of a model file, each in a session of its own. Its external data stays in its files.

    Attributes:
        flow: Values have the model's names.
    """

    def __init__(
        self,
        model: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        """Reads the model.

        Args:
            model: The model file; external data lies beside it.
            options: As for `OnnxRuntimeRunner`.
            shapes: Shape of each quantizer's input; None for sizes that are open.
            threads: Threads inside an operator; ONNX Runtime's default where None.
            rewrite: What becomes of the model before it is cut; None to leave it.

        Raises:
            InvalidBundle: The model has a quantizer that the graph has not.
        """
        self._model = model
        self._options = options
        self._threads = threads
        self._proto = onnx.load(str(model), load_external_data=False)
        if rewrite is not None:
            rewrite(self._proto)
        sources = _cut(self._proto, shapes)
        self.flow = _flow(self._proto.graph, in_order(sources, shapes))
        self._inputs = {value.name: value for value in self._proto.graph.input}
        self._stored = {one.name: one for one in self._proto.graph.initializer}

    def open(self, chunk: Chunk, arrays: Mapping[str, NDArray[Any]]) -> RunChunk:
        """Opens a part.

        Raises:
            InvalidBundle: ONNX Runtime cannot open it.
        """
        settings = session_options(self._options, self._threads)
        settings.add_session_config_entry(DATA_FOLDER, str(self._model.parent.resolve()))
        taken, made = chunk.taken(self.flow), list(chunk.made(self.flow))
        part = self._part(chunk, {name: arrays[name] for name in taken}, made)
        try:
            session = onnxruntime().InferenceSession(
                part.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base but Exception
            raise InvalidBundle(
                f"{quoted(self._model.name)}: ONNX Runtime cannot open it in segments: {error}"
            ) from error

        def run(arrays: Mapping[str, NDArray[Any]]) -> Values:
            given = {name: arrays[name] for name in taken}
            return dict(zip(made, session.run(made, given), strict=True))

        return run

    def _part(
        self, chunk: Chunk, taken: Mapping[str, NDArray[Any]], made: Sequence[str]
    ) -> onnx.ModelProto:
        """The model of a chunk; what enters has the type and the sizes that it had when it left."""
        nodes = [self._proto.graph.node[index] for index in chunk.operations]
        read = dict.fromkeys(name for node in nodes for name in _read(node))
        outputs = {value.name: value for value in self._proto.graph.output}
        graph = helper.make_graph(
            nodes,
            self._proto.graph.name,
            [self._inputs.get(name) or _value_info(name, array) for name, array in taken.items()],
            [outputs.get(name) or helper.make_empty_tensor_value_info(name) for name in made],
            [self._stored[name] for name in read if name in self._stored],
        )
        return helper.make_model(
            graph,
            ir_version=self._proto.ir_version,
            opset_imports=self._proto.opset_import,
            functions=self._proto.functions,
        )


def _value_info(name: str, array: NDArray[Any]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def _flow(graph: onnx.GraphProto, sources: Mapping[str, str]) -> Flow:
    stored_bytes = {one.name: _size_bytes(one) for one in graph.initializer}
    fused = {
        name for node in graph.node if node.op_type == _FUSED_WITH_OUTPUT for name in node.output
    }
    given = {name: _GIVEN + name for name in sources}
    outside = {*stored_bytes, *given.values()}
    return Flow(
        operations=tuple(
            Operation(
                inputs=tuple(_read(node)),
                outputs=tuple(name for name in node.output if name),
                joined=node.op_type.endswith(_DEQUANTIZER)
                or (node.op_type.endswith(_QUANTIZERS) and node.input[0] not in fused),
                moves=node.op_type in _MOVES,
                stored_bytes=sum(stored_bytes.get(name, 0) for name in node.input),
            )
            for node in graph.node
        ),
        inputs=tuple(value.name for value in graph.input if value.name not in outside),
        outputs={value.name: value.name for value in graph.output},
        given=given,
        sources=sources,
    )


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node reads, those that graphs within it take from outside among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            own = {name for inner in graph.node for name in inner.output}
            own |= {one.name for one in (*graph.input, *graph.initializer)}
            yield from (name for inner in graph.node for name in _read(inner) if name not in own)


def _size_bytes(tensor: onnx.TensorProto) -> int:
    item_bytes: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count: int = prod(tensor.dims)
    return count * item_bytes


def _cut(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, str]:
    """Gives quantizers inputs of their own; their sources by quantizer."""
    producers = {name: node for node in proto.graph.node for name in node.output}
    sources: dict[str, str] = {}
    halves = {one.name for one in proto.graph.initializer if one.data_type == TensorProto.FLOAT16}
    scales: list[tuple[onnx.NodeProto, str]] = []
    for node in proto.graph.node:
        name = quantizer_of(node.name) if node.op_type.endswith(_QUANTIZERS) else None
        if name is None:
            continue
        shape = shape_of(name, shapes)
        producer = producers.get(node.input[0])
        if producer is None or producer.op_type == _FUSED_WITH_OUTPUT or not is_fed(shape):
            continue
        sources[name] = node.input[0]
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
