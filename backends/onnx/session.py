"""An ONNX file in ONNX Runtime, with pinned options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray

from qdx.backends.contract import check_inputs
from qdx.backends.onnx.package import onnxruntime
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.graph.ir.spec import TensorSpec

ort = onnxruntime()

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}
_LEVELS = {
    "disable": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_LEVEL_OPTION = "graph_optimization_level"
_ERRORS_ONLY = 3
DATA_FOLDER: Final = "session.model_external_initializers_file_folder_path"

Rewrite = Callable[[onnx.ModelProto], None]
"""Changes a model in memory; external data stays where it is."""


class OnnxRuntimeRunner:
    """One session on the CPU provider."""

    def __init__(
        self,
        model: Path,
        options: Mapping[str, str],
        *,
        threads: int | None = None,
        profile_in: Path | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        """Opens the model.

        Args:
            model: The model file; external data lies beside it.
            options: `graph_optimization_level` (disable, basic, extended, all) and session
                configuration entries by their names in ONNX Runtime, such as `session.set_denormal_as_zero`.
            threads: Threads inside an operator; ONNX Runtime's default where None.
            profile_in: A folder for the profile that `end_profile` ends; None for none.
            rewrite: What becomes of the model before it is opened; None to open the file itself.

        Raises:
            InvalidBundle: ONNX Runtime cannot read the model.
            UsageError: An option is unknown.
        """
        settings = session_options(options, threads)
        if profile_in is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile_in / "profile")
        try:
            opened: str | bytes = str(model)
            if rewrite is not None:
                proto = onnx.load(model, load_external_data=False)
                rewrite(proto)
                settings.add_session_config_entry(DATA_FOLDER, str(model.parent.resolve()))
                opened = proto.SerializeToString()
            self._session = ort.InferenceSession(
                opened, settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base but Exception
            raise InvalidBundle(
                f"{quoted(model.name)}: ONNX Runtime cannot open it: {error}"
            ) from error
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once.

        Raises:
            UsageError: A name, dtype or shape is not the artifact's.
        """
        check_inputs(self.inputs, inputs)
        names = [spec.name for spec in self.outputs]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def end_profile(self) -> Path:
        """Ends profiling, which the runner was opened with; returns the file, in Chrome's trace format."""
        return Path(self._session.end_profiling())


def session_options(options: Mapping[str, str], threads: int | None) -> Any:
    """Session options with pinned numerics.

    Raises:
        UsageError: An option is unknown.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.use_deterministic_compute = True
    # An arena keeps what the largest run has needed: 1.5 to 2.3 GB for each large graph, and no run is faster with it.
    settings.enable_cpu_mem_arena = False
    if threads is not None:
        settings.intra_op_num_threads = threads
    for name, value in options.items():
        if name == _LEVEL_OPTION:
            if value not in _LEVELS:
                raise UsageError(
                    f"`{_LEVEL_OPTION}`: got {quoted(value)}, expected one of {', '.join(_LEVELS)}"
                )
            settings.graph_optimization_level = _LEVELS[value]
        elif "." in name:
            settings.add_session_config_entry(name, value)
        else:
            raise UsageError(
                f"{quoted(name)}: no such option of ONNX Runtime",
                hint=f"expected `{_LEVEL_OPTION}` or a session configuration entry",
            )
    return settings


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(value.name, _DTYPES.get(value.type, value.type), shape)
