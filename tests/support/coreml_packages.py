"""Packages made with coremltools' own builder, and what the interpreter makes of them."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types
from coremltools.proto.Model_pb2 import Model

from qdx.backends.coreml.lower.package import quiet
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package

_DTYPES = {
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.int32: "int32",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.int16: "int16",
    torch.bool: "bool",
}
# What a package takes and gives; all else is cast inside.
_FACE = {torch.float16, torch.float32, torch.int32}


def save(
    build: Callable[..., Any],
    inputs: dict[str, torch.Tensor],
    path: Path,
    *,
    target: str = "iOS18",
) -> Path:
    """Writes a package of a function that is given variables by name and returns one or several."""
    target_version = getattr(ct.target, target)
    specs = [
        mb.TensorSpec(x.shape, getattr(types, _DTYPES[_face(x.dtype)])) for x in inputs.values()
    ]

    # The builder reads the function's own parameters, so it gets as many as there are inputs.
    def body(*given: Any) -> Any:
        variables = dict(zip(inputs, given, strict=True))
        cast = {
            name: value
            if inputs[name].dtype in _FACE
            else mb.cast(x=value, dtype=_DTYPES[inputs[name].dtype])
            for name, value in variables.items()
        }
        made = build(mb, **cast)
        made = list(made) if isinstance(made, (list, tuple)) else [made]
        results = [_given(value, f"out{i}") for i, value in enumerate(made)]
        return results[0] if len(results) == 1 else tuple(results)

    namespace: dict[str, Any] = {"body": body}
    names = ", ".join(inputs)
    exec(f"def function({names}): return body({names})", namespace)
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        program = mb.program(input_specs=specs, opset_version=target_version)(namespace["function"])
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target_version,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def run(
    build: Callable[..., Any],
    inputs: dict[str, torch.Tensor],
    *,
    target: str = "iOS18",
) -> list[torch.Tensor]:
    """What the interpreter computes of such a function, through a package."""
    with tempfile.TemporaryDirectory() as folder:
        path = save(build, inputs, Path(folder) / "model.mlpackage", target=target)
        arrays = {name: x.to(_face(x.dtype)).numpy() for name, x in inputs.items()}
        program = read_package(path)
        results = Interpreter(program).run(arrays)
        return [torch.from_numpy(results[spec.name]) for spec in program.outputs]


def assert_close(found: torch.Tensor, expected: torch.Tensor, *, tolerance: float = 1e-6) -> None:
    """Of the same shape and, up to a share of the largest value, the same values."""
    assert tuple(found.shape) == tuple(expected.shape)
    wanted = expected.to(found.dtype) if expected.dtype == torch.bool else expected
    scale = max(1.0, float(wanted.double().abs().max())) if wanted.numel() else 1.0
    torch.testing.assert_close(
        found.double(), wanted.double(), rtol=tolerance, atol=tolerance * scale, equal_nan=True
    )


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def integers(low: int, high: int, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Uniform integers, `high` excluded."""
    return np.random.default_rng(seed).integers(low, high, shape)


def _face(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in _FACE else torch.int32


def _given(value: Any, name: str) -> Any:
    """An output's own name, and its type where a package cannot give it."""
    allowed = (types.fp16, types.fp32, types.int32)
    if value.dtype in allowed:
        return mb.identity(x=value, name=name)
    return mb.cast(x=value, dtype="int32", name=name)


def program_file(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def weight_file(package: Path) -> Path:
    return program_file(package).parent / "weights" / "weight.bin"


def edit(package: Path, change: Callable[[Any], None]) -> Path:
    """Changes the protobuf model of a package in place."""
    model = Model()
    model.ParseFromString(program_file(package).read_bytes())
    change(model)
    program_file(package).write_bytes(model.SerializeToString(deterministic=True))
    return package


def operations(model: Any) -> Any:
    """The operations of a model's main function."""
    function = model.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def sqnr_db(reference: torch.Tensor, found: Any) -> float:
    """Signal to noise ratio in decibels."""
    signal = reference.detach().double()
    noise = float((signal - torch.as_tensor(found).double()).square().sum())
    return math.inf if noise == 0 else 10 * math.log10(float(signal.square().sum()) / noise)


def converted(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    path: Path,
    *,
    target: str = "iOS18",
    precision: str = "FLOAT16",
) -> Path:
    """Writes the package of a PyTorch module as coremltools converts it; its output is `y`."""
    program = torch.export.export(module.eval(), tuple(inputs.values()), strict=False)
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        model = ct.convert(
            program.run_decompositions({}),
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=getattr(ct.precision, precision),
            inputs=[
                ct.TensorType(name=name, shape=x.shape, dtype=x.numpy().dtype)
                for name, x in inputs.items()
            ],
            outputs=[ct.TensorType(name="y")],
            skip_model_load=True,
        )
        model.save(str(path))
    return path
