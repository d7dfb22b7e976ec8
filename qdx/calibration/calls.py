"""The calls that somebody else's quantizer calibrates with: inputs of components, from the same runs that ranges come from."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from qdx.backends.layout import graph_in_layout
from qdx.calibration.run import calibrate
from qdx.calibration.unasked import tell_prompts
from qdx.exporter.calibrate.coverage import calibrated_timesteps
from qdx.exporter.devices import CPU
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.progress import SILENT
from qdx.source.pipeline import trace_pipeline

if TYPE_CHECKING:
    import torch

    from qdx.backends.capabilities import ArtifactQuantizer
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs
    from qdx.targets.profile import TargetProfile

__all__ = ["Arrays", "Calls", "RecordedCalls", "record_calls"]

_GOLDEN_RATIO: Final = (5**0.5 - 1) / 2

Arrays = Mapping[str, NDArray[Any]]


class Calls:
    """The inputs of some calls of one graph, spread evenly over all of them.

    Of n calls those stay for which the fraction of i * (sqrt(5) - 1) / 2 is least, i being the number of the
    call. They are spread evenly for any n, and over every period as well: a fixed stride of two
    would see one branch of guidance alone where the branches take turns.

    Args:
        limit: How many stay.

    Attributes:
        made: How many there were.
    """

    def __init__(self, limit: int) -> None:
        self.made = 0
        self._limit = limit
        self._kept: list[tuple[float, int, int, Arrays]] = []
        # What several calls share, such as the text's embedding in all steps, is in memory once.
        self._arrays: WeakValueDictionary[tuple[str, bytes], NDArray[Any]] = WeakValueDictionary()

    def add(self, group: int, inputs: Arrays) -> None:
        """Takes a call.

        Args:
            group: Of its timestep.
            inputs: Its arrays; they are copied.
        """
        fraction = self.made * _GOLDEN_RATIO % 1.0
        full = len(self._kept) >= self._limit
        if not full or fraction < -self._kept[0][0]:
            copies = {name: self._copy(array) for name, array in inputs.items()}
            entry = (-fraction, self.made, group, copies)
            (heapq.heapreplace if full else heapq.heappush)(self._kept, entry)
        self.made += 1

    @property
    def inputs(self) -> tuple[Arrays, ...]:
        """The kept calls in order."""
        return tuple(inputs for _, _, inputs in self._ordered())

    @property
    def groups(self) -> frozenset[int]:
        """The groups of timesteps that a kept call is of."""
        return frozenset(group for _, group, _ in self._ordered())

    def _ordered(self) -> list[tuple[int, int, Arrays]]:
        return sorted(((n, g, i) for _, n, g, i in self._kept), key=lambda entry: entry[0])

    def _copy(self, array: NDArray[Any]) -> NDArray[Any]:
        data = np.ascontiguousarray(array)
        key = (f"{data.dtype}{data.shape}", hashlib.sha256(data.data).digest())
        found = self._arrays.get(key)
        if found is None:
            found = self._arrays[key] = data.reshape(array.shape).copy()
        return found


@dataclass(frozen=True)
class RecordedCalls:
    """What a quantizer calibrates with.

    Attributes:
        samples: Inputs of the kept calls by `component.method`, named as the artifact names them.
        record: What the manifest says of them; None where nothing was recorded.
    """

    samples: Mapping[str, Sequence[Arrays]] = field(default_factory=dict, repr=False)
    record: dict[str, Any] | None = None


def record_calls(
    source: TracedPipeline,
    planned: PlannedGraphs,
    profile: TargetProfile,
    call: dict[str, Any],
    quantizer: ArtifactQuantizer,
    *,
    prompts: Sequence[str] | None = None,
    device: torch.device = CPU,
    progress: Progress = SILENT,
) -> RecordedCalls:
    """Runs the pipeline as for ranges, and keeps inputs of the components that a quantizer takes.

    Memory holds `quantizer.calls_most` calls of each graph at most, equal tensors once.

    Args:
        source: The pipeline.
        planned: Its graphs as the target takes them, and what the plan becomes there.
        profile: The target.
        call: The pipeline call, its images loaded.
        quantizer: Calibrates with them.
        prompts: Prompts to calibrate with; None keeps the call's.
        device: What computes.
        progress: Told of every call of a component.

    Raises:
        UsageError: The pipeline does not take the call or the prompts.
        InvalidModel: The pipeline does not run.
    """
    plan = planned.resolved.plan
    wanted = {
        where: Calls(quantizer.calls_most)
        for where, graph in planned.graphs.items()
        if quantizer.takes(graph.component)
    }
    if not quantizer.calls_most or not wanted:
        return RecordedCalls()
    graphs = _graphs(source, planned, profile, call)
    tell_prompts(call, plan.calibration, prompts)

    def observe(where: str, group: int, inputs: Arrays) -> None:
        if where in wanted:
            wanted[where].add(group, inputs)

    ranges = calibrate(
        source.folder, graphs, {}, call=call, settings=plan.calibration, digests=source.identity,
        prompts=prompts, device=device, progress=progress, task_name=f"recording calls for {quantizer.name}", observer=observe,
    )  # fmt: skip
    for where, found in wanted.items():
        if not found.made:
            raise UsageError(
                f"calibration: {quoted(where)} is not called, and {quantizer.name} needs its inputs",
                hint="calibrate with as many steps as the export's call, or choose other components",
            )
    samples = {
        where: _in_layout(found.inputs, graphs[where], profile) for where, found in wanted.items()
    }
    return RecordedCalls(samples, _record(ranges, wanted))


def _graphs(
    source: TracedPipeline, planned: PlannedGraphs, profile: TargetProfile, call: dict[str, Any]
) -> dict[str, Graph]:
    """Every graph of the call at the call's own sizes, with inputs as the target takes them."""
    if source.captured.moving:  # open sizes were captured at other sizes
        components = sorted({record.component for record in source.chosen.values()})
        source = trace_pipeline(source.folder, call, components=components)
        return {where: source.graph(where, profile) for where in source.captured.calls}
    return {
        where: planned.graphs.get(where) or source.graph(where, profile)
        for where in source.captured.calls
    }


def _in_layout(
    calls: Sequence[Arrays], graph: Graph, profile: TargetProfile
) -> tuple[dict[str, NDArray[Any]], ...]:
    """Calls with the artifact's names; the graph was traced with its dtypes and ranks."""
    face = graph_in_layout(graph, profile.layout).inputs
    names = {spec.name: port.name for spec, port in zip(graph.inputs, face, strict=True)}
    return tuple({names[name]: array for name, array in inputs.items()} for inputs in calls)


def _record(ranges: Ranges, wanted: Mapping[str, Calls]) -> dict[str, Any]:
    """The provenance as of ranges; coverage counts groups of timesteps of which a call was kept."""
    return {
        **ranges.provenance.model_dump(mode="json"),
        "coverage": {
            where: {
                "timestep_groups": len(ranges.groups(where)) + 1,
                "timestep_groups_seen": len(found.groups),
            }
            for where, found in wanted.items()
        },
        "timesteps": calibrated_timesteps(ranges),
        "calls": {where: {"made": c.made, "kept": len(c.inputs)} for where, c in wanted.items()},
    }
