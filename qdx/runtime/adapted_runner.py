"""An artifact that takes adapters, behind the face of one that takes none."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.contract import Runner
    from qdx.exporter.graph.ir.spec import TensorSpec

__all__ = ["AdaptedRunner", "without_adapters"]


@dataclass
class AdaptedRunner:
    """An opened artifact whose inputs for adapters are filled in.

    Attributes:
        runner: The artifact.
        zeros: What these inputs are given where no adapter is loaded, by name.
        given: What they are given otherwise.
    """

    runner: Runner
    zeros: Mapping[str, NDArray[Any]] = field(repr=False)
    given: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Those that a call of the method gives."""
        return tuple(spec for spec in self.runner.inputs if spec.name not in self.zeros)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The artifact's."""
        return self.runner.outputs

    @property
    def filled(self) -> dict[str, NDArray[Any]]:
        """What the inputs for adapters are given."""
        return {**self.zeros, **self.given}

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the artifact once, see `Runner`."""
        return self.runner({**self.filled, **inputs})


def without_adapters(runner: Runner, names: AbstractSet[str]) -> Runner:
    """The runner with zeros for its inputs of these names; itself where there are none."""
    zeros: dict[str, NDArray[Any]] = {
        spec.name: np.zeros([int(size) for size in spec.shape], spec.dtype)
        for spec in runner.inputs
        if spec.name in names
    }
    return AdaptedRunner(runner, zeros) if zeros else runner
