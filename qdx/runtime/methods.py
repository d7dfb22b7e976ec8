"""One method of one component on the target: tensors of the pipeline in, tensors of the pipeline out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.bundle.manifest import signature_of_ports
from qdx.exporter.capture.known_values import has_values
from qdx.exporter.errors import UsageError
from qdx.exporter.graph.rewrites.forms import apply, to_artifact

if TYPE_CHECKING:
    from qdx.backends.contract import Runner
    from qdx.bundle.manifest import InputPort, OutputPort
    from qdx.exporter.capture.variants import CallSignature


_SAME_TIMESTEP: Final = 1e-6
_PICTURE_RANK: Final = 4


class WrongShape(UsageError):  # noqa: N818
    """A tensor of a shape that an artifact does not take.

    Args:
        message: What and where.
        hint: The next step.
        is_size: Whether height or width alone are others.
        batches: The batch that came and the one that the artifact takes, where these alone differ; else None.
    """

    def __init__(
        self, message: str, *, hint: str, is_size: bool, batches: tuple[int, int] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.is_size = is_size
        self.batches = batches


@dataclass(frozen=True)
class TargetMethod:
    """A component's method as the target runs it.

    Attributes:
        where: `unet.forward`, for messages.
        inputs: How the artifact declares each argument.
        outputs: How the artifact names each field of the method's output.
        constants: Arguments that the artifact was exported with.
        runner: The opened artifact.
        state: What the pipeline had changed in the component when the artifact was made, by `path.attribute`.
        fixed: Tensors, see `as_values`, with whose values the artifact was made.
    """

    where: str
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    constants: Mapping[str, Any]
    runner: Runner
    state: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def signature(self) -> CallSignature:
        """The calls that it answers."""
        return signature_of_ports(self.inputs, self.state, self.fixed, self.constants)

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Runs the method.

        Args:
            tensors: By argument name; dtype and rank may be the pipeline's own (a scalar int64
                timestep), they are adapted to what the artifact declares. Those with whose values it was made must have
                these.

        Returns:
            By field of the method's output.

        Raises:
            UsageError: A tensor is missing, unknown, of a shape that the artifact does not take, or of other values than
                it was made with.
        """
        arrays = {name: tensor.numpy() for name, tensor in self.adapted(tensors).items()}
        results = self.runner(arrays)
        return {
            port.field: _answer(torch.from_numpy(results[port.name]), port) for port in self.outputs
        }

    def adapted(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the artifact is given for the tensors of a call, by its own names.

        Raises:
            UsageError: As for the call.
        """
        for name, values in self.fixed.items():
            self._check_fixed(name, values, tensors.get(name))
        known = {port.argument for port in self.inputs}
        extra = sorted(tensors.keys() - known - self.fixed.keys())
        missing = sorted(known - tensors.keys())
        if extra or missing:
            what = f"`{extra[0]}` is not an input" if extra else f"`{missing[0]}` is missing"
            raise UsageError(
                f"`{self.where}`: {what} of the artifact, which takes {', '.join(sorted(known))}",
                hint="export again with --call arguments like those of this run",
            )
        return {port.name: self._fitted(tensors[port.argument], port) for port in self.inputs}

    def _check_fixed(self, name: str, values: Any, given: torch.Tensor | None) -> None:
        if not has_values(given, values):
            raise UsageError(
                f"`{self.where}`: `{name}` holds other values than at the export, and the artifact's computation "
                "depends on them",
                hint="call it as at the export (a prompt of as many tokens), or export again with a --call like this one",
            )

    def _fitted(self, tensor: torch.Tensor, port: InputPort) -> torch.Tensor:
        dtype = getattr(torch, port.dtype)
        if port.pairs:
            tensor = torch.view_as_real(tensor.to(dtype.to_complex()).resolve_conj())
        elif tensor.is_complex():
            raise UsageError(
                f"`{self.where}`: `{port.argument}` holds complex numbers, the artifact takes {port.dtype}",
                hint="export again with --call arguments like those of this run",
            )
        if tensor.is_floating_point() and not dtype.is_floating_point:
            self._check_integral(tensor, port)
        tensor = tensor.detach().to("cpu", dtype)
        rank = len(port.shape)
        if port.form is not None:
            tensor = self._laid_out(tensor, port)
        if rank == 0 and tensor.dim() == 1:
            if not bool((tensor == tensor[0]).all()):
                raise UsageError(
                    f"`{self.where}`: `{port.argument}` holds different values, the artifact takes one"
                )
            tensor = tensor[0]
        elif rank == 1 and tensor.dim() == 0:
            size = port.shape[0]
            tensor = tensor.reshape(1).expand(size if isinstance(size, int) else 1)
        self._check_shape(tensor, port)
        self._check_values(tensor, port)
        return tensor.contiguous()

    def _laid_out(self, tensor: torch.Tensor, port: InputPort) -> torch.Tensor:
        assert port.form is not None
        batch = port.shape[0] if port.shape else 1
        try:
            steps = to_artifact(
                port.form, tuple(tensor.shape), batch if isinstance(batch, int) else 1
            )
            return apply(steps, tensor)
        except (RuntimeError, ValueError):
            raise UsageError(
                f"`{self.where}`: `{port.argument}` has shape {list(tensor.shape)}, the artifact takes it as "
                f"{list(port.shape)}",
                hint="call it with the sizes of the export",
            ) from None

    def _check_shape(self, tensor: torch.Tensor, port: InputPort) -> None:
        fits = tensor.dim() == len(port.shape) and all(
            isinstance(expected, str) or got == expected
            for got, expected in zip(tensor.shape, port.shape, strict=True)
        )
        if not fits:
            raise WrongShape(
                f"`{self.where}`: `{port.argument}` has shape {list(tensor.shape)}, the artifact takes {list(port.shape)}",
                hint="call it with the sizes of the export, or export again with a fitting --call, or with --shapes dynamic "
                "where the target takes open sizes",
                is_size=_differs_in_size_alone(tuple(tensor.shape), port.shape),
                batches=_differing_batches(tuple(tensor.shape), port.shape),
            )

    def _check_values(self, tensor: torch.Tensor, port: InputPort) -> None:
        """Refuses a timestep that the artifact's table of the time embedding does not hold."""
        if not port.values:
            return
        known = torch.tensor(port.values, dtype=torch.float64)
        for value in sorted(set(tensor.to(torch.float64).flatten().tolist())):
            distance = (known - value).abs().min()
            # Another processor may round a schedule's float32 numbers otherwise in the last bits.
            if not distance <= _SAME_TIMESTEP * max(1.0, abs(value)):
                raise UsageError(
                    f"`{self.where}`: `{port.argument}` is {value:g}, and the artifact's time embedding is "
                    f"a table of {len(known)} timesteps from {port.values[0]:g} to {port.values[-1]:g}",
                    hint="run as many steps as the export's call, with its scheduler; or export with "
                    '`"time_embedding": "compute"`, or with a --call like this one',
                )

    def _check_integral(self, tensor: torch.Tensor, port: InputPort) -> None:
        if not bool((tensor == tensor.round()).all()):
            raise UsageError(
                f"`{self.where}`: `{port.argument}` is {tensor.flatten()[0].item()}, the artifact takes whole numbers",
                hint="use a scheduler with whole timesteps (timestep_spacing leading or trailing)",
            )


def _answer(tensor: torch.Tensor, port: OutputPort) -> torch.Tensor:
    """What the component answers with what the artifact did."""
    return torch.view_as_complex(tensor.contiguous()) if port.pairs else tensor


def _differing_batches(
    shape: tuple[int, ...], expected: tuple[int | str, ...]
) -> tuple[int, int] | None:
    """The first dimensions, where all others are as they should be."""
    if not shape or len(shape) != len(expected) or not isinstance(expected[0], int):
        return None
    rest = zip(shape[1:], expected[1:], strict=True)
    fits = all(isinstance(size, str) or got == size for got, size in rest)
    return (shape[0], expected[0]) if fits else None


def _differs_in_size_alone(shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    """Whether only the last two dimensions, of at least four, are others."""
    return len(shape) == len(expected) >= _PICTURE_RANK and all(
        isinstance(size, str) or got == size
        for got, size in zip(shape[:-2], expected[:-2], strict=True)
    )
