"""What operations of a graph take on a target, by option: measured there, or declared. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from qdx.exporter.errors import InternalError
from qdx.exporter.strict_model import StrictModel

__all__ = ["LATENCY_FILE", "SCHEMA", "LatencyTable", "Machine", "OperationLatency", "WholeLatency"]

SCHEMA: Final = "qdx.latency/1"
LATENCY_FILE: Final = "latency.json"

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
    """

    option: Index
    ms: Milliseconds
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LatencyTable(StrictModel):
    """The table of one graph.

    Attributes:
        schema_: The format; the key in JSON is `schema`.
        source: `measured` by the target's runtime on this machine, or `declared`: operations and bytes against numbers
            that somebody says of the device.
        where: The graph.
        machine: Where it was measured; null for declared ones.
        whole: Of the graph as a whole; none for declared ones.
        rest_ms: What operations that no option changes take together, in float.
        operations: What others take.
        kind_of: `operation` of each site by its key.
        neighbours: Pairs of sites of which one reads what the other makes, with nothing but operations that no option
            changes between.
        change_ms: What it takes beside where two neighbours have different options: values are laid out or rounded anew,
            and less is fused. 0 where nobody measured a graph of several options.
    """

    model_config = ConfigDict(title=SCHEMA, validate_by_name=False, validate_by_alias=True)

    schema_: Literal["qdx.latency/1"] = Field(alias="schema")
    source: Literal["measured", "declared"]
    where: str
    machine: Machine | None
    whole: tuple[WholeLatency, ...]
    rest_ms: Milliseconds
    operations: tuple[OperationLatency, ...]
    kind_of: dict[str, str]
    neighbours: tuple[tuple[str, str], ...] = ()
    change_ms: Milliseconds = 0.0

    @model_validator(mode="after")
    def _whole_table(self) -> LatencyTable:
        floats = {one.operation for one in self.operations if one.option == 0}
        if missing := sorted(set(self.kind_of.values()) - floats):
            raise ValueError(f"`operations`: `{missing[0]}` has no time in float")
        if (self.machine is None) != (self.source == "declared"):
            raise ValueError("`machine`: expected where it was measured, and nothing for declared")
        if unknown := {key for pair in self.neighbours for key in pair} - self.kind_of.keys():
            raise ValueError(f"`neighbours`: there is no site `{min(unknown)}`")
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

    def changes(self, chosen: Mapping[str, int]) -> int:
        """How many neighbours have different options."""
        return sum(chosen.get(one, 0) != chosen.get(other, 0) for one, other in self.neighbours)

    def predict_ms(self, chosen: Mapping[str, int]) -> float:
        """What a call of the graph takes.

        Args:
            chosen: Option of sites by key; others are float.

        Raises:
            InternalError: A site or an option was not measured.
        """
        total = self.rest_ms + self.change_ms * self.changes(chosen)
        if unknown := sorted(chosen.keys() - self.kind_of.keys()):
            raise InternalError(f"`{self.where}`: no time of `{unknown[0]}`")
        for key in self.kind_of:
            time = self.site_ms(key, chosen.get(key, 0))
            if time is None:
                raise InternalError(f"`{self.where}`: no time of `{key}` by option {chosen[key]}")
            total += time
        return total

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)
