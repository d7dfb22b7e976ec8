"""Which branches of classifier-free guidance a call of the denoiser holds.

Pipelines of diffusers either repeat the latents in one batch, the unconditional half first, or call the
denoiser twice for each step, for the conditional branch first. Both show in the latents: equal
halves of a batch, equal latents of two calls. The order within is a convention that nothing in the tensors shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch

from qdx.exporter.errors import UsageError

__all__ = ["ALL_ROWS", "Branches", "GuidanceTracker", "Rows"]

Branches = Literal["both", "conditional", "unconditional"]


@dataclass(frozen=True)
class Rows:
    """The part of a batch that counts.

    Attributes:
        part: Its number, from 0.
        parts: Number of equal parts of the batch; 1 for the whole, 0 for nothing of it.
        batch: Size of the whole batch.
    """

    part: int = 0
    parts: int = 1
    batch: int = 1

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """The part of a tensor whose first dimension runs along the batch, or all of any other."""
        if self.parts == 1 or values.dim() == 0 or values.shape[0] % self.batch:
            return values
        return values.chunk(self.parts)[self.part]


ALL_ROWS = Rows()
_NAMES: Final = ("sample", "hidden_states", "latents")


class GuidanceTracker:
    """Follows the denoiser's calls.

    Attributes:
        copies: Most copies of the latents seen in a batch.
        calls: Most calls seen with the same latents and timestep.
    """

    def __init__(self, branches: Branches) -> None:
        self.copies = 1
        self.calls = 1
        self._branches = branches
        self._position = 0
        self._last: tuple[float, torch.Tensor] | None = None

    def rows(self, timestep: float, inputs: Mapping[str, torch.Tensor], where: str) -> Rows:
        """The part of the next call that counts.

        Raises:
            UsageError: One branch alone is wanted of a call with more than two.
        """
        latents = _latents(inputs)
        again = self._last is not None and self._last[0] == timestep
        again = again and self._last is not None and torch.equal(self._last[1], latents)
        self._position = self._position + 1 if again else 0
        self._last = timestep, latents.clone()
        copies = _copies(latents)
        self.copies, self.calls = max(self.copies, copies), max(self.calls, self._position + 1)
        if self._branches == "both":
            return ALL_ROWS
        if copies * (self._position + 1) > 2:
            raise UsageError(f"`{where}`: calibration of the {self._branches} branch alone: "
                             "the call has more than two branches",
                             hint="set `branches` to `both`")  # fmt: skip
        conditional = self._branches == "conditional"
        if copies == 2:
            return Rows(int(conditional), 2, latents.shape[0])
        return ALL_ROWS if conditional == (self._position == 0) else Rows(parts=0)


def _latents(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What is denoised: by the names that denoisers of diffusers have for it, else the largest input."""
    named = next((inputs[name] for name in _NAMES if name in inputs), None)
    if named is not None:
        return named
    floats = [value for value in inputs.values() if value.is_floating_point() and value.dim() > 1]
    return max(floats, key=lambda value: (value.dim(), value.numel()), default=torch.zeros(1, 1))


def _copies(latents: torch.Tensor) -> int:
    for copies in (4, 3, 2):
        if latents.shape[0] % copies == 0:
            first, *others = latents.chunk(copies)
            if all(torch.equal(first, other) for other in others):
                return copies
    return 1
