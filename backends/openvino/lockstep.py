"""The IR cut open at the quantizers of its inputs; see `qdx.backends.lockstep`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.lockstep import RunChunk, Values, in_order, is_fed, quantizer_of, shape_of
from qdx.backends.lockstep_chunks import Chunk, Flow, Operation
from qdx.backends.openvino.package import core, openvino
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["OpenVinoChunks"]

_FACES: Final = frozenset({"Parameter", "Result"})
_MOVES: Final = frozenset({"Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_GIVEN: Final = "given/"
_SAME: Final = 1e-5


class OpenVinoChunks:
    """Chunks of the model, each compiled by itself. Its weights are mapped, not copied.

    Attributes:
        flow: Values are named after the position of their node among the ordered nodes, inputs and outputs by the IR.
    """

    def __init__(
        self,
        model: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> None:
        """Reads the model.

        Args:
            model: The IR's XML file; its weights lie beside it.
            options: As for `OpenVinoRunner`.
            shapes: Shape of each quantizer's input in the graph; None for sizes that are open.
            threads: Processor threads; OpenVINO's default where None.

        Raises:
            InvalidBundle: OpenVINO cannot read it, or it has a quantizer that the graph has not.
        """
        self._model = model
        self._properties: dict[str, Any] = dict(options)
        if threads is not None:
            self._properties["INFERENCE_NUM_THREADS"] = threads
        try:
            self._read = core().read_model(model)
            self._nodes = self._read.get_ordered_ops()
            self.flow = _flow(self._read, self._nodes, shapes)
            rescaling = {_GIVEN + name for name in self.flow.factors}
            self._rescaling = [bool(rescaling & {*op.inputs}) for op in self.flow.operations]
        except RuntimeError as error:
            raise self._unopened(error) from error

    def open(self, chunk: Chunk, arrays: Mapping[str, NDArray[Any]]) -> RunChunk:
        """Compiles a part.

        Raises:
            InvalidBundle: OpenVINO cannot read or compile it.
        """
        del arrays
        taken, made = chunk.taken(self.flow), chunk.made(self.flow)
        try:
            with self.part(chunk) as part:
                compiled = core().compile_model(part, "CPU", self._properties)
        except RuntimeError as error:
            raise self._unopened(error) from error

        def run(arrays: Mapping[str, NDArray[Any]]) -> Values:
            given = {index: np.asarray(arrays[name], order="C") for index, name in enumerate(taken)}
            # A request of its own, whose memory the results are: another run must not write there.
            request = compiled.create_infer_request()
            results = request.infer(given, share_inputs=True, share_outputs=True)
            return {name: results[index] for index, name in enumerate(made)}

        return run

    @contextmanager
    def part(self, chunk: Chunk) -> Iterator[Any]:
        """The model of a chunk: what it takes are its parameters, what it makes its results.

        It is of the nodes of the whole model, which are put together again when the context ends.
        """
        ov = openvino()
        taken, made = chunk.taken(self.flow), chunk.made(self.flow)
        nodes = self._nodes
        parameters: dict[str, Any] = {}
        joints: list[tuple[Any, Any]] = []

        def feed(port: Any, output: Any) -> None:
            joints.append((port, port.get_source_output()))
            port.replace_source_output(output)

        try:
            for index in chunk.operations:
                names = self.flow.operations[index].inputs
                for port, name in zip(nodes[index].inputs(), names, strict=True):
                    if name not in taken:
                        continue
                    if name not in parameters:
                        source = port.get_source_output()
                        kind = ov.Type.f32 if name.startswith(_GIVEN) else source.get_element_type()
                        parameters[name] = ov.opset13.parameter(source.get_partial_shape(), kind)
                    feed(port, parameters[name].output(0))
                if self._rescaling[index]:
                    # It is given what stands behind the multiplication that it was joined with.
                    for own, scaled in ((1, 3), (2, 4)):
                        feed(nodes[index].input(own), nodes[index].input_value(scaled))
            yield ov.Model(
                [ov.opset13.result(_output(nodes, name)) for name in made],
                [parameters[name] for name in taken],
                "chunk",
            )
        finally:
            for port, output in reversed(joints):
                port.replace_source_output(output)

    def _unopened(self, error: RuntimeError) -> InvalidBundle:
        return InvalidBundle(
            f"{quoted(self._model.name)}: OpenVINO cannot open it in segments: {error}"
        )


def _flow(model: Any, nodes: Sequence[Any], shapes: Mapping[str, tuple[int | None, ...]]) -> Flow:
    """What the model computes, each value named after the position of its node and of the output.

    A quantizer that the conversion has moved is not fed from outside.
    """
    positions = {node.get_name(): index for index, node in enumerate(nodes)}

    def value(output: Any) -> str:
        return f"{positions[output.get_node().get_name()]}:{output.get_index()}"

    inputs = {value(port): port.get_any_name() for port in model.inputs}
    outputs = {port.get_any_name(): value(port.get_node().input_value(0)) for port in model.outputs}
    operations: list[Operation] = []
    sources: dict[str, str] = {}
    factors: dict[str, NDArray[Any]] = {}
    for index, node in enumerate(nodes):
        read = [value(output) for output in node.input_values()]
        kind = node.get_type_name()
        name = quantizer_of(node.get_friendly_name()) if kind == "FakeQuantize" else None
        factor = None if name is None else _factor(node, shape_of(name, shapes))
        if name is not None and factor is not None:
            sources[name] = read[0]
            read[0] = _GIVEN + name
            if not np.allclose(factor, 1.0, rtol=_SAME, atol=0):
                factors[name] = factor
        made = [f"{index}:{port}" for port in range(node.get_output_size())]
        operations.append(
            Operation(
                inputs=tuple(inputs.get(each, each) for each in read),
                outputs=() if kind in _FACES else tuple(made),
                joined=kind == "FakeQuantize",
                moves=kind in _MOVES,
                stored_bytes=node.get_byte_size() if kind == "Constant" else 0,
            )
        )
    return Flow(
        operations=tuple(operations),
        inputs=tuple(inputs.values()),
        outputs={name: inputs.get(each, each) for name, each in outputs.items()},
        given={name: _GIVEN + name for name in sources},
        sources=in_order(sources, shapes),
        factors=factors,
    )


def _output(nodes: Sequence[Any], name: str) -> Any:
    """The output of a node that a value of the flow is named after."""
    index, _, port = name.partition(":")
    return nodes[int(index)].output(int(port))


def _factor(quantizer: Any, shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    """What the quantizer multiplies by before it rounds, of a shape that fits its input; None where it is not cut.

    The conversion joins a multiplication before a quantizer with it: the range of its input is then that of
    its output divided by the factors. One that reads something else than the quantizer of the quantized graph is
    not cut.
    """
    source = quantizer.input_value(0)
    if source.get_node().get_type_name() in {"Parameter", "Transpose"} or _shape(source) != shape:
        return None
    if not is_fed(shape):
        return None
    bounds = [quantizer.input_value(index).get_node() for index in range(1, 5)]
    if any(each.get_type_name() != "Constant" for each in bounds):
        return None
    low, high, low_out, high_out = (np.asarray(each.data, np.float64) for each in bounds)
    with np.errstate(invalid="ignore"):
        factor = (high_out - low_out) / (high - low)
    exact = np.isfinite(factor).all() and (factor > 0).all()
    if not exact or not np.allclose(
        low * factor, low_out, rtol=_SAME, atol=_SAME * np.abs(high_out).max()
    ):
        return None
    return factor.astype(np.float32)


def _shape(source: Any) -> tuple[int | None, ...] | None:
    """The shape of an output, None for sizes that are open; None where not even the rank is known."""
    shape = source.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)
