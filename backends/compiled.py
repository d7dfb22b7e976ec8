"""What an artifact was compiled for, where a compiler's log says so and nothing has run: `TellsCompiled`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from qdx.backends.contract import Way
from qdx.exporter.text.words import size

if TYPE_CHECKING:
    from qdx.backends.contract import KernelExecution

__all__ = [
    "WAYS",
    "WAY_WORDS",
    "Attention",
    "Compiled",
    "TellsCompiled",
    "counts_of",
    "memory_words",
    "ways_words",
]

WAYS: Final[tuple[Way, ...]] = ("native", "weights_in_product", "weights_in_memory", "float")
"""From the best to the worst."""
WAY_WORDS: Final[Mapping[Way, str]] = {
    "native": "native low precision",
    "weights_in_product": "weights dequantized inside the product",
    "weights_in_memory": "dequantized to memory",
    "float": "float",
}
"""The ways as tables name them."""


@dataclass(frozen=True)
class Attention:
    """One attention of a model.

    Attributes:
        name: Of the module that it belongs to.
        fused: Whether one kernel computes both of its products and the softmax between them.
        kernel: What computes the softmax.
    """

    name: str
    fused: bool
    kernel: str


@dataclass(frozen=True)
class Compiled:
    """What one artifact was compiled for.

    Attributes:
        built_by: The compiler with its version.
        built_for: The devices, such as `8.9`.
        size_bytes: Of what it made.
        executions: The compiled operations, in order; nothing of them was executed.
        quantized: Keys of the sites that the artifact quantizes.
        attentions: Every attention, also those in float.
        layers: Number of compiled operations by kind.
        weights_bytes: Memory for the weights.
        activation_bytes: Memory for what lies between operations in one execution.
        scratch_bytes: The most that one operation needs of that for itself.
        overflowing: Keys of the sites whose sums of products are kept where they overflow.
    """

    built_by: str
    built_for: str
    size_bytes: int
    executions: tuple[KernelExecution, ...] = field(repr=False)
    quantized: frozenset[str] = field(repr=False)
    attentions: tuple[Attention, ...]
    layers: Mapping[str, int]
    weights_bytes: int
    activation_bytes: int
    scratch_bytes: int
    overflowing: tuple[str, ...] = ()

    @property
    def ways(self) -> dict[str, Way]:
        """The way of each site that the artifact quantizes; of one with several operations, the worst."""
        found: dict[str, Way] = {}
        for one in self.executions:
            for key in one.sites:
                if one.compiled is not None and key in self.quantized:
                    known = found.get(key, one.compiled)
                    found[key] = max(known, one.compiled, key=WAYS.index)
        return found

    def facts(self) -> dict[str, Any]:
        """What tables show, as plain JSON data."""
        return {
            "built_by": self.built_by,
            "built_for": self.built_for,
            "size_bytes": self.size_bytes,
            "ways": counts_of(self.ways),
            "attentions": len(self.attentions),
            "attentions_fused": sum(one.fused for one in self.attentions),
            "weights_bytes": self.weights_bytes,
            "activation_bytes": self.activation_bytes,
            "scratch_bytes": self.scratch_bytes,
            "layers": dict(self.layers),
            "overflowing": list(self.overflowing),
        }


def counts_of(ways: Mapping[str, Way]) -> dict[Way, int]:
    """How many sites were compiled in each way, all ways named."""
    return {way: sum(one == way for one in ways.values()) for way in WAYS}


def ways_words(counts: Mapping[Way, int]) -> str:
    """Counts of operations by the way in which they were compiled, in words; `nothing quantized` for none.

    >>> ways_words({"native": 102, "weights_in_product": 10, "weights_in_memory": 0, "float": 0})
    '102 native low precision, 10 weights dequantized inside the product'
    """
    words = [f"{counts[way]} {WAY_WORDS[way]}" for way in WAYS if counts.get(way)]
    return ", ".join(words) or "nothing quantized"


def memory_words(weights_bytes: int, activation_bytes: int, scratch_bytes: int) -> str:
    """What an engine takes on the device, such as `4.2 MiB of weights, 8.1 MiB between layers`.

    What a single layer needs for itself lies in the same memory as what is between layers.
    """
    return (
        f"{size(weights_bytes)} of weights, {size(activation_bytes)} between layers, "
        f"of it at most {size(scratch_bytes)} for one layer"
    )


@runtime_checkable
class TellsCompiled(Protocol):
    """Knows what its artifacts were compiled for, without a device that runs them."""

    def runs_here(self) -> bool:
        """Whether artifacts that were compiled run on this machine, so that what is executed can be told."""

    def compiled(self, folder: Path) -> Compiled | None:
        """What the artifact of a folder was compiled for; None where nothing was compiled there, or no log tells.

        Raises:
            InvalidBundle: The log is missing, altered or malformed, or does not account for an operation.
        """
