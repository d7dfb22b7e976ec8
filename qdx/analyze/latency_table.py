"""What operations of a graph take on a target, by option: measured there, or declared. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from qdx.exporter.errors import InternalError, UsageError, quoted
from qdx.exporter.model_faults import choices
from qdx.exporter.strict_model import StrictModel

__all__ = [
    "FLOAT",
    "HOW",
    "SCHEMA",
    "TRUSTED",
    "How",
    "Latency",
    "LatencyTable",
    "Machine",
    "MixedLatency",
    "Neighbours",
    "OperationLatency",
    "WholeLatency",
    "read_how",
]

SCHEMA: Final = "qdx.latency/1"
FLOAT: Final = 0
"""The option of what is not quantized."""
TRUSTED: Final = 0.15
"""How far the sum may lie from what a graph of mixed options takes, relative, before it is told."""

How = Literal["auto", "measured", "declared", "none"]
"""How times are come by: `auto` measures them where the target's runtime runs here, else takes what is declared."""
HOW: Final[tuple[How, ...]] = ("auto", "measured", "declared", "none")

Index = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Machine(StrictModel):
    """Where and how it was measured.

    Attributes:
        processor: Its name.
        cores: Of the machine.
        threads: Of the runtime; null for its own choice.
        clock: `processor` seconds of all threads, which with one thread are what an idle machine's clock shows, or `wall`.
        load: The machine's load averages of one minute, before and after; empty where the system does not tell.
        rounds: Turns that count of the whole graphs.
        runs: Of each graph whose operations were timed.
        versions: Of the runtime's packages.
    """

    processor: str
    cores: int | None
    threads: int | None
    clock: Literal["processor", "wall"]
    load: tuple[float, ...]
    rounds: Index
    runs: Index
    versions: dict[str, str]


class OperationLatency(StrictModel):
    """What one kind of operation takes.

    Attributes:
        operation: Kind and shapes: what operations that take the same time have in common.
        option: How it is computed.
        ms: Of one call of it.
        sites: How many operations of the graph this is the mean of.
    """

    operation: str
    option: Index
    ms: Milliseconds
    sites: Index


class WholeLatency(StrictModel):
    """What the graph takes where every operation that can has one option.

    Attributes:
        option: The option.
        ms: Of one call.
        spread: Half of the range between the quartiles of its ratio to float, over the ratio.
        clock_ms: The sum of its operations by the runtime's own clock, which is not this one's.
    """

    option: Index
    ms: Milliseconds
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    clock_ms: Milliseconds


class MixedLatency(StrictModel):
    """What a graph takes whose operations have several options.

    Attributes:
        name: What it is: `plan`, `half of it`, or `drawn` with a number.
        fitted: Whether what changes between neighbours take was told from it; otherwise it is a check.
        ms: Of one call.
        predicted_ms: By the table.
    """

    name: str
    fitted: bool
    ms: Milliseconds
    predicted_ms: Milliseconds

    @property
    def off(self) -> float:
        """How far the prediction lies from the truth, relative to it."""
        return self.predicted_ms / self.ms - 1 if self.ms else 0.0


class Neighbours(StrictModel):
    """Two operations of which one reads what the other makes, with none between that an option changes.

    Attributes:
        maker: Key of the one.
        reader: Key of the other.
        elements: Numbers that the maker makes.
    """

    maker: str
    reader: str
    elements: Index


class LatencyTable(StrictModel):
    """The table of one graph.

    Attributes:
        schema_: The format; the key in JSON is `schema`.
        source: `measured` by the target's runtime on this machine, or `declared`: operations and bytes against numbers
            that somebody says of the device.
        where: The graph.
        machine: Where it was measured; null for declared ones.
        device: Whose numbers were taken; null for measured ones.
        whole: Of the graph as a whole; none for declared ones.
        rest_ms: What operations that no option changes take together, in float.
        operations: What others take.
        kind_of: `operation` of each site by its key.
        reads: The type in which each option reads inputs, by its number.
        neighbours: Between which a change of that type takes time: values are laid out or rounded anew, and less is fused.
        change_ns: What it takes for each number that passes. 0 where nobody measured a graph of several options.
        mixed: Graphs of several options, as predicted and as measured; none for declared ones.
    """

    model_config = ConfigDict(title=SCHEMA, validate_by_name=False, validate_by_alias=True)

    schema_: Literal["qdx.latency/1"] = Field(alias="schema")
    source: Literal["measured", "declared"]
    where: str
    machine: Machine | None
    device: str | None = None
    whole: tuple[WholeLatency, ...]
    rest_ms: Milliseconds
    operations: tuple[OperationLatency, ...]
    kind_of: dict[str, str]
    reads: tuple[str, ...] = ()
    neighbours: tuple[Neighbours, ...] = ()
    change_ns: Milliseconds = 0.0
    mixed: tuple[MixedLatency, ...] = ()

    @model_validator(mode="after")
    def _whole_table(self) -> LatencyTable:
        floats = {one.operation for one in self.operations if one.option == FLOAT}
        if missing := sorted(set(self.kind_of.values()) - floats):
            raise ValueError(f"`operations`: `{missing[0]}` has no time in float")
        if (self.machine is None) != (self.source == "declared"):
            raise ValueError("`machine`: expected where it was measured, and nothing for declared")
        if (self.device is None) != (self.source == "measured"):
            raise ValueError("`device`: expected for declared ones, and nothing for measured")
        places = {key for one in self.neighbours for key in (one.maker, one.reader)}
        if unknown := places - self.kind_of.keys():
            raise ValueError(f"`neighbours`: there is no site `{min(unknown)}`")
        options = {one.option for one in self.operations}
        if self.neighbours and (far := [one for one in options if one >= len(self.reads)]):
            raise ValueError(f"`reads`: nothing is said of option {min(far)}")
        return self

    @cached_property
    def _times(self) -> Mapping[tuple[str, int], float]:
        return {(one.operation, one.option): one.ms for one in self.operations}

    def site_ms(self, key: str, option: int) -> float | None:
        """What one operation takes by an option; None where nobody measured that.

        Raises:
            KeyError: There is no such site.
        """
        return self._times.get((self.kind_of[key], option))

    def sites_ms(self, keys: tuple[str, ...], option: int) -> float | None:
        """What operations take together; those without kernels of their own, such as norms, count in `rest_ms`.

        Returns:
            None where one of them was not measured by the option.
        """
        times = [self.site_ms(key, option) for key in keys if key in self.kind_of]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None

    def changed_elements(self, chosen: Mapping[str, int]) -> int:
        """How many numbers pass between neighbours that read different types.

        Args:
            chosen: Option of sites by key; others are float.
        """

        def read(key: str) -> str:
            return self.reads[chosen.get(key, FLOAT)]

        return sum(one.elements for one in self.neighbours if read(one.maker) != read(one.reader))

    def predict_ms(self, chosen: Mapping[str, int]) -> float:
        """What a call of the graph takes.

        Args:
            chosen: Option of sites by key; others are float.

        Raises:
            InternalError: A site or an option was not measured.
        """
        total = self.rest_ms + self.change_ns * 1e-6 * self.changed_elements(chosen)
        if unknown := sorted(chosen.keys() - self.kind_of.keys()):
            raise InternalError(f"`{self.where}`: no time of `{unknown[0]}`")
        for key in self.kind_of:
            time = self.site_ms(key, chosen.get(key, FLOAT))
            if time is None:
                raise InternalError(f"`{self.where}`: no time of `{key}` by option {chosen[key]}")
            total += time
        return total

    def everywhere_ms(self, option: int) -> float:
        """What a call takes where every operation that can has an option; others are float."""
        takes = {key: option for key in self.kind_of if self.site_ms(key, option) is not None}
        return self.predict_ms(takes)

    @property
    def farthest_off(self) -> float | None:
        """How far the prediction lies from what was measured of a graph that it was not fitted to; None without any."""
        return max((abs(one.off) for one in self.mixed if not one.fitted), default=None)

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)


class Latency(StrictModel):
    """What operations of all graphs of an analysis take.

    Attributes:
        graphs: A table for each.
    """

    graphs: Annotated[tuple[LatencyTable, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _of_one_source(self) -> Latency:
        if len({one.source for one in self.graphs}) > 1:
            raise ValueError("`graphs`: some are measured and others declared")
        if len({one.where for one in self.graphs}) < len(self.graphs):
            raise ValueError("`graphs`: two are of one graph")
        return self

    @property
    def source(self) -> Literal["measured", "declared"]:
        """Where the numbers come from."""
        return self.graphs[0].source

    def of(self, where: str) -> LatencyTable:
        """The table of a graph.

        Raises:
            KeyError: There is none.
        """
        return {one.where: one for one in self.graphs}[where]


def read_how(text: str) -> How:
    """How times are come by, as the command line has it.

    Raises:
        UsageError: It is none of these.
    """
    for how in HOW:
        if text == how:
            return how
    raise UsageError(
        f"--latency: {quoted(text)} is none that there is", hint=f"there are {choices(HOW)}"
    )
