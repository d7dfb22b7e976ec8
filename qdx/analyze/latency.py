"""What each operation takes by each option, from the target's own runtime.

The harness is the graph itself. For each option there is an artifact in which every operation that can takes it, so that
each stands among its neighbours, with its quantizers, and is fused as in the model. Artifacts are called in turns; the
runtime's own clock then divides the time of each among its operations, and operations of the same kind and shapes share
the mean of theirs. What stands around an operation under its name, such as its quantizer, belongs to it.

The time of the whole counts more than the clock inside: times of operations are scaled so that a graph of one option
takes what it was measured to take. What changes where neighbours differ comes from further artifacts, in which options
are drawn: how much more they take than the sum, for each pair of neighbours that differ.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from qdx.analyze.latency_table import (
    SCHEMA,
    LatencyTable,
    Machine,
    OperationLatency,
    WholeLatency,
)
from qdx.backends.capabilities import TimesOperations
from qdx.bench.rounds import Taken, take_turns
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.fx import Node

    from qdx.backends.capabilities import TimedOperation
    from qdx.backends.contract import Backend, Runner
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.progress import Progress

__all__ = [
    "FLOAT",
    "DrawnArtifact",
    "OptionArtifact",
    "example_inputs",
    "kinds_of",
    "measure_latency",
    "neighbours_of",
    "turn",
]

FLOAT: Final = 0
"""The option of what is not quantized."""
_TURN_S: Final = 0.02
"""A turn takes at least so long, of as many calls as that needs; the least of them counts."""
_QUARTER: Final = 4
"""Of the times of an operation the lower quartile counts: others on the machine only add."""
_FARTHEST: Final = 1.5
"""How far the scale of an option's operations may lie from that of its whole graph: where few operations take the option,
the difference of two whole graphs says little."""

_Inputs = Mapping[str, "NDArray[Any]"]


@dataclass(frozen=True)
class OptionArtifact:
    """A folder that `lower` wrote.

    Attributes:
        option: What the operations take that can.
        folder: The files.
        sites: Keys of the sites that take it; for float, `FLOAT`, all.
    """

    option: int
    folder: Path
    sites: frozenset[str]


@dataclass(frozen=True)
class DrawnArtifact:
    """A folder that `lower` wrote, in which operations take several options.

    Attributes:
        folder: The files.
        chosen: Option of sites by key; others are float.
    """

    folder: Path
    chosen: Mapping[str, int]


def measure_latency(
    graph: Graph,
    sites: Sequence[Site],
    artifacts: Sequence[OptionArtifact],
    backend: Backend,
    options: Mapping[str, str],
    *,
    drawn: Sequence[DrawnArtifact] = (),
    inputs: _Inputs | None = None,
    threads: int | None = None,
    rounds: int = 40,
    runs: int = 16,
    progress: Progress = SILENT,
) -> LatencyTable:
    """Measures a graph.

    Args:
        graph: In the form that is quantized: attention open where its products are quantized.
        sites: Of the graph.
        artifacts: One for each option, float among them.
        backend: The target's; it is `TimesOperations`.
        options: With which artifacts run.
        drawn: Such as tell what changes of options between neighbours take.
        inputs: Of a call, named as artifacts name them; None takes random numbers, which change no time.
        threads: Of the runtime; None for its own choice. With one thread processor time is measured, which other programs
            on the machine disturb little.
        rounds: Turns that count.
        runs: In which operations are timed.
        progress: Shows the steps.

    Raises:
        InternalError: No artifact is float, or two have one option.
        InvalidBundle: The runtime cannot read an artifact.
    """
    if not isinstance(backend, TimesOperations):
        raise InternalError(f"the backend `{backend.name}` does not tell times of operations")
    by_option = {one.option: one for one in artifacts}
    if FLOAT not in by_option or len(by_option) != len(artifacts):
        raise InternalError(f"`{graph.where}`: expected one artifact of each option, and of float")
    clock: Literal["processor", "wall"] = "processor" if threads == 1 else "wall"
    load = [_load()]
    folders = {one.option: one.folder for one in artifacts}
    folders |= {-1 - place: one.folder for place, one in enumerate(drawn)}
    runners = {n: backend.open(one, options, threads=threads) for n, one in folders.items()}
    given = example_inputs(graph, runners[FLOAT]) if inputs is None else inputs
    every = _whole_times(runners, given, rounds, clock, progress)
    whole = tuple(one for option, one in every.items() if option >= FLOAT)
    drawn_ms = [every[-1 - place].ms for place in range(len(drawn))]
    del runners
    kinds = kinds_of(graph, sites)
    timed: dict[int, _Divided] = {}
    with progress.task("timing operations", len(artifacts)) as task:
        for one in artifacts:
            operations = backend.time_operations(
                one.folder, options, given, runs=runs, threads=threads
            )
            timed[one.option] = _divided(operations, [s for s in sites if s.key in kinds])
            task.advance(1)
    load.append(_load())
    rest_ms, costs = _scaled(by_option, timed, {one.option: one.ms for one in whole})
    table = LatencyTable.model_validate(
        {
            "schema": SCHEMA,
            "source": "measured",
            "where": graph.where,
            "machine": Machine(
                processor=platform.processor() or platform.machine(),
                cores=os.cpu_count(),
                threads=threads,
                clock=clock,
                load=tuple(one for one in load if one is not None),
                rounds=rounds,
                runs=runs,
                versions=backend.versions(),
            ),
            "whole": whole,
            "rest_ms": rest_ms,
            "operations": _by_kind(costs, kinds),
            "kind_of": kinds,
            "neighbours": neighbours_of(graph, [site for site in sites if site.key in kinds]),
        }
    )
    return table.model_copy(update={"change_ms": _change_ms(table, drawn, drawn_ms)})


def _change_ms(
    table: LatencyTable, drawn: Sequence[DrawnArtifact], drawn_ms: Sequence[float]
) -> float:
    """What a change between neighbours takes: all that is more than the sum, over all changes."""
    more = sum(ms - table.predict_ms(one.chosen) for one, ms in zip(drawn, drawn_ms, strict=True))
    changes = sum(table.changes(one.chosen) for one in drawn)
    return max(0.0, more / changes) if changes else 0.0


def neighbours_of(graph: Graph, sites: Sequence[Site]) -> tuple[tuple[str, str], ...]:
    """Pairs of sites, the one that makes what the other reads first, with no other of the sites between."""
    keys: dict[str, list[str]] = defaultdict(list)
    for site in sites:  # attention that is one node is two sites
        keys[site.node].append(site.key)
    makers: dict[Node, frozenset[str]] = {}
    found: dict[tuple[str, str], None] = {}
    for node in graph.program.graph.nodes:
        read = frozenset(one for source in node.all_input_nodes for one in makers[source])
        own = keys.get(node.name)
        for key in own or ():
            found.update({(maker, key): None for maker in sorted(read)})
        makers[node] = frozenset(own) if own else read
    return tuple(found)


def kinds_of(graph: Graph, sites: Sequence[Site]) -> dict[str, str]:
    """What tells operations of different times apart, by key of the site: kind and shapes.

    Norms, embeddings and residual additions have none: no option changes them.
    """
    nodes = {node.name: node for node in graph.program.graph.nodes}
    found = {}
    for site in sites:
        if not site.ports or site.is_residual:
            continue
        node = nodes[site.node]
        inputs = [list(shape(node.args[index])) for index in site.ports.values()]
        weight = f", weight {list(site.weight_shape)}" if site.weight is not None else ""
        found[site.key] = (
            f"{site.op} {list(shape(node))} of {' and '.join(map(str, inputs))}{weight}"
        )
    return found


def _whole_times(
    runners: Mapping[int, Runner],
    inputs: _Inputs,
    rounds: int,
    clock: str,
    progress: Progress,
) -> dict[int, WholeLatency]:
    """Milliseconds of a call of each, in turns: float's median, and others' by their median ratio to it."""
    calls = {str(option): turn(partial(runner, inputs)) for option, runner in runners.items()}
    total = len(calls) * (rounds + 2)
    with progress.task("timing whole graphs", total) as task:
        taken = take_turns(calls, rounds=rounds, inputs=1, task=task, pause_s=0.02)
    seconds = {
        int(name): [one.cpu_s if clock == "processor" else one.wall_s for one in each]
        for name, each in taken.items()
    }
    floats_ms = 1e3 * statistics.median(seconds[FLOAT])
    found = {}
    for option, own in seconds.items():
        ratios = [one / floats for one, floats in zip(own, seconds[FLOAT], strict=True)]
        ratio = statistics.median(ratios)
        low, high = np.quantile(ratios, [0.25, 0.75])
        spread = float(high - low) / 2 / ratio
        found[option] = WholeLatency(option=max(option, FLOAT), ms=floats_ms * ratio, spread=spread)
    return found


def turn(call: Callable[[], Any]) -> Callable[[int], Taken]:
    """One turn: the least that a call took of a few."""

    def run(number: int) -> Taken:
        del number
        least, start = Taken(float("inf"), float("inf")), time.perf_counter()
        while least.wall_s == float("inf") or time.perf_counter() - start < _TURN_S:
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            least = Taken(
                min(least.wall_s, time.perf_counter() - wall),
                min(least.cpu_s, time.process_time() - cpu),
            )
        return least

    return run


@dataclass(frozen=True)
class _Divided:
    """What the runtime's clock says of one artifact, in seconds.

    Attributes:
        sites: By key.
        rest: Of all else.
    """

    sites: Mapping[str, float]
    rest: float

    @property
    def total(self) -> float:
        return sum(self.sites.values()) + self.rest


def _divided(operations: Sequence[TimedOperation], sites: Sequence[Site]) -> _Divided:
    """The times of operations, each to the sites that it computes or stands around."""
    own = dict.fromkeys((site.key for site in sites), 0.0)
    by_name: dict[str, list[str]] = defaultdict(list)
    for site in sites:
        by_name[site.fqn].append(site.key)
    rest = 0.0
    for one in operations:
        seconds = sorted(one.seconds)[len(one.seconds) // _QUARTER]
        keys = [key for key in one.sites if key in own]
        if not one.sites:  # a quantizer, say, is named after the module that it was made for
            keys = by_name.get(one.name.partition("/")[0], [])
        for key in keys:
            own[key] += seconds / len(keys)
        rest += 0.0 if keys else seconds
    return _Divided(own, rest)


def _scaled(
    artifacts: Mapping[int, OptionArtifact],
    timed: Mapping[int, _Divided],
    whole_ms: Mapping[int, float],
) -> tuple[float, dict[tuple[str, int], float]]:
    """What is left beside the sites in float, and what each site takes by each option, in milliseconds.

    Scaled so that they add up to what the whole graph of each option takes.
    """
    floats = timed[FLOAT]
    unit = whole_ms[FLOAT] / floats.total
    rest_ms = floats.rest * unit
    costs = {(key, FLOAT): seconds * unit for key, seconds in floats.sites.items()}
    for option, artifact in artifacts.items():
        if option == FLOAT:
            continue
        taking = [key for key in timed[option].sites if key in artifact.sites]
        own = sum(timed[option].sites[key] for key in taking)
        if not own:
            continue
        others_ms = rest_ms + sum(costs[key, FLOAT] for key in floats.sites if key not in taking)
        plain = whole_ms[option] / timed[option].total
        scale = (whole_ms[option] - others_ms) / own
        scale = min(max(scale, plain / _FARTHEST), plain * _FARTHEST)
        for key in taking:
            costs[key, option] = timed[option].sites[key] * scale
    return rest_ms, costs


def _by_kind(
    costs: Mapping[tuple[str, int], float], kinds: Mapping[str, str]
) -> tuple[OperationLatency, ...]:
    """The mean of operations of one kind, by option."""
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for (key, option), ms in costs.items():
        found[option, kinds[key]].append(ms)
    return tuple(
        OperationLatency(
            operation=kind, option=option, ms=sum(all_ms) / len(all_ms), sites=len(all_ms)
        )
        for (option, kind), all_ms in sorted(found.items())
    )


def example_inputs(graph: Graph, runner: Runner) -> dict[str, NDArray[Any]]:
    """Random numbers in the artifact's shapes, open sizes as the graph usually has them; whole numbers are 1."""
    random = np.random.default_rng(0)
    usual = {symbol: size.usual for symbol, size in graph.sizes.items()}
    found: dict[str, NDArray[Any]] = {}
    for place, spec in enumerate(runner.inputs):
        own = graph.inputs[place].shape if place < len(graph.inputs) else ()
        known = own if len(own) == len(spec.shape) else spec.shape
        sizes = [
            size if isinstance(size, int) else usual.get(str(symbol), 1)
            for size, symbol in zip(spec.shape, known, strict=True)
        ]
        floats = spec.dtype.startswith("float")
        values = random.standard_normal(sizes) if floats else np.ones(sizes)
        found[spec.name] = values.astype(spec.dtype)
    return found


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None
