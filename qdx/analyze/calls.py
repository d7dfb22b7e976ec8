"""Which calls of a pipeline's runs are measured, and their inputs: teacher-forced, on the trajectory of the float model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import torch
from pydantic import Field, ValidationError

from qdx.cache.facts import tensor_digest
from qdx.calibration.prompts import sample_calls
from qdx.calibration.rehearsed import rehearsed
from qdx.calibration.run import calibrate
from qdx.exporter.errors import InvalidInput, InvalidModel, StorageError, UsageError, quoted
from qdx.exporter.files import dump_json, load_json, replace_file
from qdx.exporter.strict_model import StrictModel
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.sweep.workers import Words, run_parts

if TYPE_CHECKING:
    from qdx.analyze.analysis import MeasuredCall
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.schema.settings import Calibration
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline

__all__ = [
    "Moment",
    "RecordedInputs",
    "Runs",
    "choose_moments",
    "moments_of",
    "runs_of",
    "steps_of",
]

_LAST: Final = 2
"""Of the last steps all runs are measured, as far as it goes: they make most of the error, and differ most between runs."""
_LAST_SHARE: Final = 3
_INDEX: Final = "index.json"
_WORDS: Final = Words("analysis", "run")


@dataclass(frozen=True)
class Moment:
    """One step of one run, of which every call of a graph is measured: one, or one for each branch of guidance.

    Attributes:
        where: The graph.
        sample: The run, from 0.
        step: Its step, from 0; calls in a row with the same timestep are one.
        timestep: Of the step; None for a graph without.
        calls: Places of its calls among those of the graph in a run.
        weight: What part of the steps of all runs it stands for; those of a graph add up to 1.
    """

    where: str
    sample: int
    step: int
    timestep: float | None
    calls: tuple[int, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class RecordedInputs:
    """The inputs of a moment's calls, on disk.

    Attributes:
        moment: When they were made.
        inputs: Of each call, by name.
    """

    moment: Moment
    inputs: tuple[Mapping[str, torch.Tensor], ...] = field(repr=False)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """What tells the inputs of each call from others."""
        return tuple(
            "".join(f"{name}:{tensor_digest(call[name])};" for name in sorted(call))
            for call in self.inputs
        )


def choose_moments(
    calls: Sequence[tuple[str, float | None]],
    where: str,
    *,
    samples: int,
    count: int | None,
    most: int = 32,
) -> tuple[Moment, ...]:
    """Spreads moments over the schedule, the runs taking turns.

    Of N moments in runs of T steps: where N < T, the last step stands for itself, in as many runs as there are, but no more
    than a third of the moments; the others are the middles of equal parts of the rest, for which they stand. Where N >= T, every step is measured in one run, and what is left goes to
    the last two steps, to see them in every run, and then evenly to the others.

    Args:
        calls: Every call of one run and its timestep, in order.
        where: The graph.
        samples: Number of runs.
        count: How many moments, fewer where there are not so many; None for all steps, and the last two in every run, up to
            `most`.
        most: See there.
    """
    steps = steps_of(calls, where)
    if count is None:
        count = min(len(steps) + min(_LAST, len(steps)) * (samples - 1), most)
    chosen = _chosen_steps(len(steps), samples, count) if steps else {}
    found: list[Moment] = []
    for step, (runs, stands_for) in chosen.items():
        timestep, places = steps[step]
        weight = stands_for / (len(steps) * runs)
        for _ in range(runs):
            sample = len(found) % samples
            found.append(Moment(where, sample, step, timestep, tuple(places), weight))
    return tuple(found)


def steps_of(
    calls: Sequence[tuple[str, float | None]], where: str
) -> list[tuple[float | None, list[int]]]:
    """The steps of a graph in one run: timestep and places of calls of each; calls in a row with the same timestep are one."""
    steps: list[tuple[float | None, list[int]]] = []
    timesteps = [timestep for made, timestep in calls if made == where]
    for place, timestep in enumerate(timesteps):
        if steps and timestep is not None and steps[-1][0] == timestep:
            steps[-1][1].append(place)
        else:
            steps.append((timestep, [place]))
    return steps


def moments_of(calls: Iterable[MeasuredCall]) -> tuple[Moment, ...]:
    """Returns the moments that an analysis measured, from its calls."""
    found: dict[tuple[str, int, int], Moment] = {}
    for call in calls:
        place = (call.where, call.sample, call.step)
        known = found.get(place)
        one = Moment(*place, call.timestep, (call.call,), call.weight)
        if known is not None:
            one = replace(one, calls=(*known.calls, call.call), weight=known.weight + call.weight)
        found[place] = one
    return tuple(found.values())


def _chosen_steps(total: int, samples: int, count: int) -> dict[int, tuple[int, int]]:
    """By step, in how many runs it is measured, and for how many steps it stands."""
    if count < total:
        last = max(1, min(samples, count // _LAST_SHARE))
        parts = count - last
        ends = [number * (total - 1) // max(1, parts) for number in range(parts + 1)]
        found = {
            (start + end) // 2: (1, end - start) for start, end in pairwise(ends) if end > start
        }
        return found | {total - 1: (last, 1 if parts else total)}
    runs = [1] * total
    left = min(count, total * samples) - total
    for step in range(total - 1, max(-1, total - 1 - _LAST), -1):
        more = min(samples - 1, left)
        runs[step] += more
        left -= more
    others = total - _LAST
    while left > 0:
        more = min(left, others)
        for number in range(more):
            runs[(2 * number + 1) * others // (2 * more)] += 1
        left -= more
    return {step: (number, 1) for step, number in enumerate(runs)}


@dataclass(frozen=True)
class Runs:
    """The runs of a pipeline in which calls are measured.

    Attributes:
        source: The pipeline.
        graphs: Every graph of its call, with static shapes and inputs as the target takes them.
        call: The pipeline call, complete, with its number of steps.
        settings: Number of runs and the first seed.
        prompts: Each run takes as many as the call's own prompt is long; None keeps the call's.
        calls: Every call of one run of a method that has a graph, and its timestep, in order.
    """

    source: TracedPipeline
    graphs: Mapping[str, Graph] = field(repr=False)
    call: dict[str, Any] = field(repr=False)
    settings: Calibration
    prompts: Sequence[str] | None
    calls: tuple[tuple[str, float | None], ...] = field(repr=False)

    def prompt_index(self, sample: int) -> int | None:
        """Which of the prompts is the first of a run's; None where the call's own was used."""
        if self.prompts is None:
            return None
        own = self.call.get("prompt")
        size = 1 if isinstance(own, str) or own is None else len(own)
        return sample * size % len(self.prompts)

    def record(
        self, moments: Sequence[Moment], folder: Path, *, workers: int, progress: Progress
    ) -> tuple[RecordedInputs, ...]:
        """Runs the pipeline and keeps the inputs of chosen calls.

        Args:
            moments: What is kept.
            folder: Keeps it; runs that are there already are not repeated.
            workers: How many runs at a time.
            progress: Told of every run.

        Raises:
            UsageError: The pipeline does not take the call or the prompts.
            InvalidModel: The pipeline does not run.
            StorageError: The disk refused.
        """
        by_sample: dict[int, list[Moment]] = {}
        for moment in moments:
            by_sample.setdefault(moment.sample, []).append(moment)
        samples = sample_calls(self.call, self.settings.samples, self.prompts)
        kept: dict[int, _Kept] = {n: _Kept(folder / f"run-{n:04d}") for n in by_sample}

        def run(sample: int, tell: Any) -> None:
            self._record_one(sample, samples[sample], by_sample[sample], kept[sample])
            tell({"sample": sample})

        missing = [n for n, wanted in by_sample.items() if not kept[n].has(wanted)]
        with progress.task("recording float trajectories", len(missing), unit="runs") as task:
            run_parts(
                missing, run, words=_WORDS, workers=workers, tell=lambda _: task.advance(1), repeats=1
            )  # fmt: skip
        return tuple(RecordedInputs(one, kept[one.sample].read(one)) for one in moments)

    def _record_one(
        self, sample: int, call: dict[str, Any], moments: Sequence[Moment], kept: _Kept
    ) -> None:
        wanted = {(moment.where, place) for moment in moments for place in moment.calls}
        made: dict[str, int] = {}
        found: dict[tuple[str, int], dict[str, torch.Tensor]] = {}

        def observe(where: str, group: int, inputs: Mapping[str, Any]) -> None:
            del group
            place = made.get(where, 0)
            made[where] = place + 1
            if (where, place) in wanted:
                tensors = {name: torch.from_numpy(one).clone() for name, one in inputs.items()}
                found[where, place] = tensors

        settings = self.settings.model_copy(
            update={"samples": 1, "seed": self.settings.seed + sample}
        )
        prompt = call.get("prompt")
        texts = None if self.prompts is None else [prompt] if isinstance(prompt, str) else prompt
        calibrate(
            self.source.folder, self.graphs, {}, call=self.call, settings=settings,
            digests=self.source.identity, prompts=texts, observer=observe,
        )  # fmt: skip
        if lacking := sorted(wanted - found.keys()):
            where, place = lacking[0]
            raise InvalidModel(
                f"{quoted(where)}: run {sample + 1} made {made.get(where, 0)} calls, expected more than {place}",
                hint="the pipeline decides by the picture how often it calls; analyze fewer --calls",
            )
        kept.write(found)


def runs_of(
    source: TracedPipeline,
    graphs: Mapping[str, Graph],
    settings: Calibration,
    prompts: Sequence[str] | None,
) -> Runs:
    """The runs of a pipeline by the settings of a calibration, rehearsed; nothing computes yet.

    Raises:
        UsageError: The pipeline does not take the call.
        InvalidModel: It fails for another reason.
    """
    call, rehearsal = rehearsed(source, settings, graphs)
    if prompts is not None and call.get("prompt") is None:
        raise UsageError("--calib: the pipeline is called without a prompt", hint="leave it out")
    return Runs(source, graphs, call, settings, prompts, rehearsal.calls)


class _Tensors(StrictModel):
    where: str
    call: Annotated[int, Field(ge=0)]
    inputs: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


class _Index(StrictModel):
    schema_: Literal["qdx.analyzed-run/1"] = Field(alias="schema")
    calls: tuple[_Tensors, ...]


class _Kept:
    """The inputs of one run's chosen calls in a folder; whole once it has its index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index: _Index | None = None

    def has(self, moments: Sequence[Moment]) -> bool:
        """Whether all calls of some moments are there."""
        calls = self._calls()
        return all((one.where, place) in calls for one in moments for place in one.calls)

    def write(self, found: Mapping[tuple[str, int], Mapping[str, torch.Tensor]]) -> None:
        """Keeps calls, beside those that are there."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            raise StorageError(f"{quoted(self._path)}: {bad.strerror or bad}") from bad
        folder = TensorFolder(self._path)
        rows = dict(self._calls())
        rows |= {place: folder.store(tensors).digests for place, tensors in found.items()}
        value = {
            "schema": "qdx.analyzed-run/1",
            "calls": [
                {"where": where, "call": place, "inputs": dict(inputs)}
                for (where, place), inputs in sorted(rows.items())
            ],
        }
        replace_file(self._path / _INDEX, dump_json(value))

    def read(self, moment: Moment) -> tuple[StoredTensors, ...]:
        """The inputs of a moment's calls."""
        self._index = None
        folder, calls = TensorFolder(self._path), self._calls()
        return tuple(StoredTensors(folder, calls[moment.where, one]) for one in moment.calls)

    def _calls(self) -> Mapping[tuple[str, int], Mapping[str, str]]:
        path = self._path / _INDEX
        if not path.exists():
            return {}
        if self._index is None:
            try:
                self._index = _Index.model_validate_json(
                    dump_json(load_json(path, error=InvalidInput))
                )
            except (InvalidInput, ValidationError):
                path.unlink()  # damaged: the run is made again
                return {}
        return {(one.where, one.call): one.inputs for one in self._index.calls}
