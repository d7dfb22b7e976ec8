"""What a transform is: one step of a recipe, with the tensors and the JSON by which it is done again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.formats.given import GivenWeight
    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.plan.schema.scheme import Weights
    from qdx.exporter.transforms.placement import Placement

__all__ = [
    "Asked",
    "Choice",
    "Given",
    "Key",
    "Learner",
    "Schedule",
    "StoredRecord",
    "Tensors",
    "Transform",
    "vectors",
]

Key = Annotated[str, Field(min_length=1, max_length=512)]
Tensors = Mapping[str, torch.Tensor]


class Schedule(Protocol):
    """When a pipeline calls a graph."""

    @property
    def input(self) -> str | None:
        """The graph's input that tells the timestep; None without one."""

    @property
    def timesteps(self) -> tuple[float, ...]:
        """Each once, in the order in which they come."""


class Given(Protocol):
    """Weights that another tool has quantized."""

    @property
    def tool(self) -> str:
        """Its name."""

    @property
    def weights(self) -> Mapping[str, Mapping[str, GivenWeight]]:
        """By component and by the qualified name of the parameter in it."""


@dataclass(frozen=True)
class Asked:
    """A weight whose rounding is to be learned.

    Attributes:
        scheme: What the plan makes of it, with the method and how it learns.
        quantization: Its quantizer.
    """

    scheme: Weights
    quantization: WeightQuantization


class Learner(Protocol):
    """Learns from calls of a graph."""

    def learned(
        self, where: str, prepared: Sequence[Transform], asked: Mapping[str, Asked]
    ) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """What methods of rounding store.

        Args:
            where: The graph.
            prepared: The transforms that make it ready for quantizers.
            asked: What is learned, by site key.

        Returns:
            By site key, the tensors of the method's `learns`, contiguous.

        Raises:
            InvalidModel: A weight cannot be quantized, or calls show nothing of its inputs.
        """


@dataclass(frozen=True)
class Choice:
    """What the transforms of one graph are chosen by.

    Attributes:
        resolved: What the plan becomes on the target.
        ranges: What calibration recorded; None where nothing comes from it.
        schedule: When the pipeline calls the graph, where a table of its time embedding is wanted.
        given: Weights that another tool has quantized; None for none.
        placement: The quantizers; None while the float graph is being prepared for them.
        prepared: The transforms that prepared it.
        learner: Learns from calls; None where nothing is to be learned.
    """

    resolved: ResolvedPlan
    ranges: Ranges | None = None
    schedule: Schedule | None = None
    placement: Placement | None = None
    given: Given | None = None
    prepared: tuple[Transform, ...] = ()
    learner: Learner | None = None


class StoredRecord(BaseModel):
    """Base of what JSON holds of a transform: unknown keys are errors, and nothing is converted."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def tensor_names(self) -> Iterable[str]:
        """Names of the tensors that belong to it."""
        return ()


class Transform(ABC):
    """One step from a traced graph to its quantized one. Subclasses are frozen dataclasses.

    Attributes:
        kind: Its name in recipes.
        prepares: It makes the float graph ready for quantizers, so it comes before they are placed; the others quantize.
        Stored: What JSON holds of it.
    """

    kind: ClassVar[str]
    prepares: ClassVar[bool] = False
    Stored: ClassVar[type[StoredRecord]]

    @classmethod
    @abstractmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """What is to be done to a graph; None for nothing.

        Args:
            graph: The float graph, changed by all transforms that prepare and come before this one.
            choice: What it depends on.
        """

    @abstractmethod
    def apply(self, graph: Graph) -> Graph:
        """The graph that it makes of one; the given one stays as it is.

        Raises:
            InternalError: It was chosen for another graph.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data that `Stored` accepts, without its tensors."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors under the names that `Stored.tensor_names` tells, contiguous."""
        return {}

    @classmethod
    @abstractmethod
    def from_stored(cls, stored: Any, tensors: Tensors) -> Self:
        """The transform that was stored.

        Args:
            stored: A `Stored`.
            tensors: By name, exactly those of `Stored.tensor_names`, of any dtype and shape.

        Raises:
            ValueError: A tensor is one that no export writes.
        """


def vectors(tensors: Tensors, *, positive: bool) -> dict[str, torch.Tensor]:
    """Tensors that hold a finite float32 number for each channel.

    Raises:
        ValueError: One does not.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.dim() != 1:
            raise ValueError(
                f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, expected float32 [channels]"
            )
        least = 0.0 if positive else -float("inf")
        if not bool((torch.isfinite(tensor) & (tensor > least)).all()):
            raise ValueError(f"tensor {name} holds numbers that none can have")
    return dict(tensors)
