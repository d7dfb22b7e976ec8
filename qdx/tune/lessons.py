"""What is learned of one graph in one way, and what that depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.transforms.low_rank import SplitLowRank
from qdx.exporter.transforms.smoothing import Smooth
from qdx.exporter.transforms.time_embedding import TimeTable

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.transforms.transform import Asked, Transform

__all__ = ["Lesson", "applied", "described"]


@dataclass(frozen=True)
class Lesson:
    """Weights of a graph that are learned together.

    Attributes:
        prepared: The transforms that make the graph ready for quantizers.
        asked: What is learned, by site key.
    """

    prepared: tuple[Transform, ...] = field(repr=False)
    asked: Mapping[str, Asked] = field(repr=False)

    @property
    def streamed(self) -> tuple[Transform, ...]:
        """What changes the inputs of weights: smoothing, and what comes before it.

        Branches and open attention compute the same in floats but for the last bits. Without them the moments of a weight
        are the same to the bit whatever becomes of others, so that what was measured of one option is what a plan stores
        in which others have other options.
        """
        last = max(
            (n for n, one in enumerate(self.prepared) if isinstance(one, Smooth)), default=-1
        )
        return self.prepared[: last + 1]

    def floats(self, graph: Graph) -> Graph:
        """The float graph whose weights are learned, of the traced one."""
        # A table holds the timesteps of the export's schedule, and calls have those of the calibration's.
        return applied(graph, (one for one in self.prepared if not isinstance(one, TimeTable)))

    def parts(self) -> dict[str, JsonValue]:
        """All that it depends on beside the graph and the calls."""
        return {
            "prepared": described(self.prepared),
            "asked": {key: self.asks(key) for key in sorted(self.asked)},
        }

    def asks(self, key: str) -> JsonValue:
        """What is asked of one site."""
        one = self.asked[key]
        return [one.scheme.model_dump(mode="json"), asdict(one.quantization)]

    def branch(self, key: str) -> JsonValue:
        """The low-rank branch beside one site; None without one."""
        split = next((one for one in self.prepared if isinstance(one, SplitLowRank)), None)
        for one in () if split is None else split.branches.values():
            if key in one.sites:
                return [tensor_digest(one.up), tensor_digest(one.down)]
        return None

    def key_at(self, where: str, key: str) -> str:
        """What the values of one site are known by, of one model and its calls; not of weights that are learned by blocks."""
        return key_of({
            "where": where,
            "streamed": described(self.streamed),
            "site": key,
            "branch": self.branch(key),
            "asked": self.asks(key),
        })  # fmt: skip


def applied(graph: Graph, transforms: Iterable[Transform]) -> Graph:
    """Returns a graph with transforms applied in order."""
    for one in transforms:
        graph = one.apply(graph)
    return graph


def described(transforms: Iterable[Transform]) -> list[JsonValue]:
    """Returns what tells transforms from others."""
    return [
        {
            "kind": one.kind,
            "to": one.to_json(),
            "tensors": {n: tensor_digest(t) for n, t in sorted(one.tensors().items())},
        }
        for one in transforms
    ]
