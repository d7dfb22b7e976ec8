"""Runs an OpenVINO IR with pinned options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdx.backends.contract import check_inputs
from qdx.backends.openvino.package import core
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.graph.ir.spec import TensorSpec

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "i64": "int64",
    "i32": "int32",
    "boolean": "bool",
}

_Shapes = tuple[tuple[int, ...], ...]


class OpenVinoRunner:
    """A model on the CPU device, compiled for each combination of input shapes it is called with.

    Static shapes run faster than dynamic ones, and a pipeline calls a component with very few
    shapes, so a model with dynamic dimensions is compiled once for each.
    """

    def __init__(
        self, model: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> None:
        """Reads the model.

        Args:
            model: The IR's XML file; its weights lie beside it.
            options: OpenVINO's own properties of a compiled model.
            threads: Processor threads; OpenVINO's default where None.

        Raises:
            InvalidBundle: OpenVINO cannot read the model.
        """
        try:
            self._model = core().read_model(model)
        except RuntimeError as error:
            raise InvalidBundle(
                f"{quoted(model.name)}: OpenVINO cannot open it: {error}"
            ) from error
        self._options: dict[str, Any] = dict(options)
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self.inputs = tuple(_spec(port) for port in self._model.inputs)
        self.outputs = tuple(_spec(port) for port in self._model.outputs)
        self._dynamic = any(isinstance(size, str) for spec in self.inputs for size in spec.shape)
        self._requests: dict[_Shapes, Any] = {}

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once.

        Raises:
            UsageError: A name, dtype or shape is not the artifact's, or an option is unknown.
        """
        check_inputs(self.inputs, inputs)
        arrays = [np.asarray(inputs[spec.name], order="C") for spec in self.inputs]
        request = self._request(tuple(array.shape for array in arrays))
        # The request reads the arrays in place; `arrays` holds them until the results are copied.
        results = request.infer(dict(enumerate(arrays)), share_inputs=True, share_outputs=False)
        return {spec.name: results[index] for index, spec in enumerate(self.outputs)}

    def compile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compiles the model, for the sizes of a call where they are given, and keeps nothing.

        Raises:
            InvalidBundle: OpenVINO cannot.
        """
        model = self._model
        if self._dynamic and all(spec.name in shapes for spec in self.inputs):
            model = model.clone()
            model.reshape({n: list(shapes[s.name]) for n, s in enumerate(self.inputs)})
        try:
            self._compiled(model)
        except UsageError as error:
            raise InvalidBundle(error.message) from error

    def _request(self, shapes: _Shapes) -> Any:
        if shapes not in self._requests:
            model = self._model
            if self._dynamic:
                model = model.clone()
                model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
            self._requests[shapes] = self._compiled(model).create_infer_request()
        return self._requests[shapes]

    def _compiled(self, model: Any) -> Any:
        try:
            return core().compile_model(model, "CPU", self._options)
        except RuntimeError as error:
            raise UsageError(f"OpenVINO cannot compile the model: {error}") from error


def _spec(port: Any) -> TensorSpec:
    name = port.get_any_name()
    shape = tuple(
        size.get_length() if size.is_static else f"{name}_{axis}"
        for axis, size in enumerate(port.get_partial_shape())
    )
    kind = port.get_element_type().get_type_name()
    return TensorSpec(name, _DTYPES.get(kind, kind), shape)
