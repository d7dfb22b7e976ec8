"""The calls that rounding learns from: inputs of components on the float model's own trajectories, recorded when they are wanted.

Of all calls of all samples those are kept for which the fraction of i * (sqrt(5) - 1) / 2 is least, i being the number of
the call: as many as are wanted, spread evenly over samples and steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.cache.facts import computing_versions, images_digest
from qdx.calibration.graphs import calibrated_graphs
from qdx.calibration.prompts import sample_calls
from qdx.calibration.rehearsed import rehearsed
from qdx.calibration.run import calibrate
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.progress import SILENT
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.sweep.workers import Words, available_cores, run_parts

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.plan.schema.settings import Calibration
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs

__all__ = ["LearningCalls", "learning_calls"]

_GOLDEN_RATIO: Final = (5**0.5 - 1) / 2
_WORDS: Final = Words("calibration", "sample")


@dataclass(frozen=True)
class LearningCalls:
    """Calls that can be recorded.

    Attributes:
        source: The pipeline, traced at the sizes of the calibration.
        graphs: Every graph of its call, at these sizes.
        settings: Number of samples, steps and seeds.
        prompts: As for a calibration.
        identity: Tells what is recorded from all else.
        workers: Samples at a time.
        progress: Told of every sample.
    """

    source: TracedPipeline
    graphs: Mapping[str, Graph] = field(repr=False)
    settings: Calibration
    prompts: Sequence[str] | None
    identity: Mapping[str, JsonValue] = field(repr=False)
    workers: int
    progress: Progress = field(default=SILENT, repr=False)

    def record(
        self, wanted: Mapping[str, int], folder: Path
    ) -> Mapping[str, Sequence[Mapping[str, torch.Tensor]]]:
        """Runs the pipeline and keeps inputs of calls.

        Args:
            wanted: How many calls of each graph at most.
            folder: Where tensors are kept, each distinct one once for a sample.

        Returns:
            The inputs of the calls of each graph, in order; each access reads its file.

        Raises:
            UsageError: The pipeline does not take the call or the prompts, or does not call a graph.
            InvalidModel: The pipeline does not run.
            StorageError: The disk refused.
        """
        call, rehearsal = rehearsed(self.source, self.settings, self.graphs)
        samples = sample_calls(call, self.settings.samples, self.prompts)
        chosen = {
            where: _chosen(sum(made == where for made, _ in rehearsal.calls), len(samples), most)
            for where, most in wanted.items()
        }
        kept: dict[str, dict[int, StoredTensors]] = {where: {} for where in wanted}
        folders = [TensorFolder(folder / f"sample-{number:04d}") for number in range(len(samples))]

        def run(sample: int, tell: Any) -> None:
            own = {where: numbers.get(sample, {}) for where, numbers in chosen.items()}
            tell({"sample": sample, "calls": self._record_one(sample, samples[sample], own, folders[sample])})  # fmt: skip

        with self.progress.task("recording calls to learn from", len(samples), unit="samples") as task:  # fmt: skip

            def told(message: Mapping[str, Any]) -> None:
                for where, number, digests in message["calls"]:
                    kept[where][number] = StoredTensors(folders[message["sample"]], digests)
                task.advance(1)

            run_parts(range(len(samples)), run, words=_WORDS, workers=self.workers, tell=told)
        for where, found in kept.items():
            if not found:
                raise UsageError(
                    f"calibration: {quoted(where)} is not called, and its weights learn from its inputs",
                    hint="give a call with --call that uses what the plan quantizes",
                )
        return {where: [one for _, one in sorted(found.items())] for where, found in kept.items()}

    def _record_one(
        self,
        sample: int,
        call: dict[str, Any],
        chosen: Mapping[str, Mapping[int, int]],
        folder: TensorFolder,
    ) -> list[tuple[str, int, dict[str, str]]]:
        """Keeps the chosen calls of one sample; of each its graph, its number, and the digests of its inputs."""
        folder.path.mkdir(parents=True, exist_ok=True)
        made: dict[str, int] = {}
        found: list[tuple[str, int, dict[str, str]]] = []

        def observe(where: str, group: int, inputs: Mapping[str, Any]) -> None:
            del group
            place = made.get(where, 0)
            made[where] = place + 1
            if where in chosen and place in chosen[where]:
                stored = folder.store({name: torch.from_numpy(one) for name, one in inputs.items()})
                found.append((where, chosen[where][place], stored.digests))

        settings = self.settings.model_copy(
            update={"samples": 1, "seed": self.settings.seed + sample}
        )
        prompt = call.get("prompt")
        texts = None if self.prompts is None else [prompt] if isinstance(prompt, str) else prompt
        calibrate(
            self.source.folder, self.graphs, {}, call=self.source.call, settings=settings,
            digests=self.source.identity, prompts=texts, observer=observe,
        )  # fmt: skip
        return found


def _chosen(each: int, samples: int, most: int) -> dict[int, dict[int, int]]:
    """Of every sample the places of its calls that are kept, each with its number among all calls."""
    order = sorted(range(each * samples), key=lambda number: number * _GOLDEN_RATIO % 1.0)
    found: dict[int, dict[int, int]] = {}
    for number in order[:most]:
        found.setdefault(number // each, {})[number % each] = number
    return found


def learning_calls(
    source: TracedPipeline,
    plan: Plan,
    call: dict[str, Any],
    *,
    prompts: Sequence[str] | None = None,
    planned: PlannedGraphs | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> LearningCalls:
    """The calls of a plan's calibration; nothing computes yet.

    Args:
        source: The pipeline.
        plan: The plan.
        call: The pipeline call, its images loaded.
        prompts: Prompts to calibrate with; None keeps the call's.
        planned: The graphs of an export; None where there are none.
        workers: Samples computed at a time, each with one thread; None takes one for each processor.
        progress: Told of every sample.

    Raises:
        UsageError: The pipeline does not take the plan's call.
    """
    found = calibrated_graphs(source, plan, call, planned)
    identity: dict[str, JsonValue] = {
        "versions": computing_versions(),
        "files": dict(source.identity),
        "call": record_call(found.call),
        "setup": [dict(step) for step in source.folder.setup],
        "images": images_digest(found.call),
        "prompts": None if prompts is None else list(prompts),
        "calibration": plan.calibration.model_dump(mode="json"),
    }
    return LearningCalls(
        found.source,
        found.graphs,
        plan.calibration,
        prompts,
        identity,
        workers or available_cores(),
        progress,
    )
