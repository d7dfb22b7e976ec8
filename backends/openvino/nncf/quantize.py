"""NNCF as the quantizer of an OpenVINO IR, instead of a placement of our own.

It takes the float IR and recorded inputs of the component and returns a quantized IR of the same face, which
the same audit and the same gates judge. What NNCF notes in the IR beside the weights, such as its
settings and version, stays out: it holds nothing that running needs, and changes from run to run.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.openvino import package
from qdx.backends.openvino.lower import settle_names
from qdx.exporter.errors import InvalidBundle, StorageError, TargetRefusal, first_line, quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qdx.exporter.plan.schema.settings import Nncf

    Inputs = Mapping[str, NDArray[np.generic]]

__all__ = ["quantize_with_nncf"]

_NOTES: Final = ("nncf",)
_CONVOLUTIONS: Final = ("Convolution", "GroupConvolution")
_BITS_8: Final = ("int8_asym", "int8_sym")
_OFF: Final = -1.0


def quantize_with_nncf(
    source: Path, target: Path, settings: Nncf, samples: Sequence[Inputs]
) -> None:
    """Quantizes an IR.

    Args:
        source: The float IR's XML file.
        target: XML file to write; its weights come beside it.
        settings: The plan's settings of NNCF.
        samples: Inputs of the component by name as calibration recorded them; not needed for mode
            `weights`.

    Raises:
        RuntimeMissing: NNCF is not installed.
        InvalidBundle: OpenVINO cannot read the IR.
        TargetRefusal: NNCF refuses the model or the settings.
        StorageError: The disk refused.
    """
    nncf = package.nncf()
    ov = package.openvino()
    try:
        model = package.core().read_model(source)
    except RuntimeError as error:
        raise InvalidBundle(f"{quoted(source.name)}: OpenVINO cannot open it: {error}") from error
    with _quiet():
        try:
            quantized = _quantized(nncf, model, settings, samples)
        except (
            RuntimeError,
            ValueError,
            nncf.ValidationError,
            nncf.UnsupportedModelError,
        ) as error:
            reason = first_line(error, otherwise=type(error).__name__)
            raise TargetRefusal(
                f"{quoted(source.name)}: NNCF refuses: {reason}",
                hint="other settings under `nncf`, or quantizer `qdx`",
            ) from error
    _forget_notes(quantized)
    settle_names(quantized)
    try:
        ov.save_model(quantized, target, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"{quoted(target.name)}: OpenVINO could not write it: {error}"
        ) from error


def _quantized(nncf: Any, model: Any, settings: Nncf, samples: Sequence[Inputs]) -> Any:
    if settings.mode == "weights":
        return _compressed(nncf, model, settings, types=())
    if settings.mode == "hybrid":
        model = _compressed(nncf, model, settings, types=_CONVOLUTIONS)
    ignored = nncf.IgnoredScope(names=_compressed_products(model), validate=False)
    advanced: dict[str, Any] = {}
    if settings.smooth_quant_alpha is not None:
        parameters = nncf.AdvancedSmoothQuantParameters(
            convolution=_OFF, matmul=settings.smooth_quant_alpha
        )
        advanced["smooth_quant_alphas"] = parameters
    return nncf.quantize(
        model,
        nncf.Dataset(list(samples)),
        preset=nncf.QuantizationPreset(settings.preset),
        model_type=None if settings.model_type is None else nncf.ModelType(settings.model_type),
        subset_size=max(len(samples), 1),
        fast_bias_correction=settings.fast_bias_correction,
        ignored_scope=ignored,
        advanced_parameters=nncf.AdvancedQuantizationParameters(**advanced),
    )


def _compressed(nncf: Any, model: Any, settings: Nncf, *, types: Sequence[str]) -> Any:
    """Weights in low precision, of all operations but those of some types."""
    arguments: dict[str, Any] = {}
    if settings.weights not in _BITS_8:
        arguments = {"group_size": settings.group_size, "ratio": settings.ratio}
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode(settings.weights),
        ignored_scope=nncf.IgnoredScope(types=list(types), validate=False),
        **arguments,
    )


def _compressed_products(model: Any) -> list[str]:
    """Names of the operations that multiply compressed weights, which `hybrid` leaves with float inputs."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        while source.get_type_name() in {"Multiply", "Reshape", "Subtract", "Transpose"}:
            source = source.input_value(0).get_node()
        if source.get_type_name() == "Convert":
            found.append(node.get_friendly_name())
    return found


def _forget_notes(model: Any) -> None:
    info = model.get_rt_info()
    for name in _NOTES:
        if name in info:
            del info[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences NNCF's notes, and its bars, which it draws on the output that is the command's own."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
