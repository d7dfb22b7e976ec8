"""The IR cut open at its quantizers; see `qdx.backends.lockstep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdx.backends.lockstep import Values, quantizer_of, shape_of
from qdx.backends.openvino.package import openvino
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["OpenVinoLockstep"]


class OpenVinoLockstep:
    """One compiled model over all segments."""

    def __init__(
        self,
        model: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> None:
        """Opens the model.

        Args:
            model: The IR's XML file; its weights lie beside it.
            options: As for `OpenVinoRunner`.
            shapes: Shape of each quantizer's input in the graph; None for sizes that are open.
            threads: Processor threads; OpenVINO's default where None.

        Raises:
            InvalidBundle: OpenVINO cannot read or compile it, or it has a quantizer that the graph has not.
        """
        core = openvino().Core()
        properties: dict[str, Any] = dict(options)
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        try:
            read = core.read_model(model)
            self._inputs = [port.get_any_name() for port in read.inputs]
            self._outputs = [port.get_any_name() for port in read.outputs]
            self.quantizers = _cut(read, shapes)
            self._request = core.compile_model(read, "CPU", properties).create_infer_request()
        except RuntimeError as error:
            raise InvalidBundle(
                f"{quoted(model.name)}: OpenVINO cannot open it in segments: {error}"
            ) from error

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
    ) -> tuple[Values, Values]:
        """Runs every segment once."""
        arrays = [inputs[name] for name in self._inputs]
        arrays += [values[name] for name in self.quantizers]
        given = {index: np.asarray(array, order="C") for index, array in enumerate(arrays)}
        results = self._request.infer(given, share_inputs=True, share_outputs=False)
        names = (*self._outputs, *self.quantizers)
        found = {name: results[index] for index, name in enumerate(names)}
        own = {name: found.pop(name) for name in self.quantizers}
        return found, own


def _cut(model: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[str, ...]:
    """Gives quantizers parameters of their own and the model their sources as results.

    A quantizer that the conversion has moved or joined with its neighbours stays inside its segment.
    """
    ov = openvino()
    names: list[str] = []
    parameters: list[Any] = []
    sources: list[Any] = []
    for node in model.get_ordered_ops():
        name = quantizer_of(node.get_friendly_name())
        if name is None or node.get_type_name() != "FakeQuantize":
            continue
        shape = shape_of(name, shapes)
        source = node.input_value(0)
        if source.get_node().get_type_name() in {"Parameter", "Transpose"}:
            continue
        if _shape(source) != shape or _rescales(node):
            continue
        parameter = ov.opset13.parameter(source.get_partial_shape(), ov.Type.f32)
        node.input(0).replace_source_output(parameter.output(0))
        names.append(name)
        parameters.append(parameter)
        sources.append(source)
    model.add_parameters(parameters)
    model.add_results([ov.opset13.result(source) for source in sources])
    model.validate_nodes_and_infer_types()
    return tuple(names)


def _shape(source: Any) -> tuple[int | None, ...] | None:
    """The shape of an output, None for sizes that are open; None where not even the rank is known."""
    shape = source.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


def _rescales(quantizer: Any) -> bool:
    """Whether a multiplication was joined to the quantizer, so that it is fed what stands before that.

    Without, its input range is its output range.
    """
    low, high, low_out, high_out = (quantizer.input_value(i).get_node() for i in range(1, 5))
    if any(each.get_type_name() != "Constant" for each in (low, high, low_out, high_out)):
        return True
    pairs = ((low.data, low_out.data), (high.data, high_out.data))
    return not all(a.size == b.size and np.allclose(a, b, rtol=1e-5) for a, b in pairs)
