"""The benchmark: processes are started, calls taken in turns, figures compared."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.backends.compiled import TellsCompiled
from qdx.backends.registry import get_backend
from qdx.bench.calls import reference_calls, seeded_calls
from qdx.bench.contenders import Contender, methods_of, read_contenders
from qdx.bench.process import Worker, start_worker
from qdx.bench.report import BenchReport, ContenderResult, over_openings, timings_of
from qdx.bench.rounds import WARM_UP_ROUNDS, Taken, take_turns
from qdx.bundle.companions import write_file
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.bench.calls import MethodCalls
    from qdx.bundle.manifest import MethodRecord
    from qdx.exporter.progress import Progress

__all__ = ["bench"]

_AllTaken = dict[str, dict[str, list[Taken]]]
"""By method and contender, one for each round."""


def bench(
    contenders: Sequence[str],
    *,
    model: Path | str | None = None,
    calls: Mapping[str, MethodCalls] | None = None,
    call: dict[str, Any] | None = None,
    steps: int = 4,
    rounds: int = 15,
    openings: int = 3,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> BenchReport:
    """Measures bundles and others' artifacts, each in a process of its own, in turns.

    Only the one whose turn it is computes; the others wait. What is compared is the time of a call with that of the
    first bundle in the same round, which a loaded machine disturbs far less than the times themselves. What a machine
    disturbs once for as long as a process lives, such as where its memory lies, only opening anew tells.

    Args:
        contenders: `FOLDER`, `NAME=FOLDER` or `NAME=FOLDER:RUNTIME`; the first is a bundle, whose methods are measured.
        model: The pipeline folder, whose calls in PyTorch are taken as inputs; None takes seeded values.
        calls: The inputs themselves, by method, instead of either.
        call: Arguments of the pipeline that replace those of the export.
        steps: Denoising steps of the run in PyTorch.
        rounds: Calls of each method by each contender that count, at least; each opening has as many.
        openings: How often everything is opened anew; at most as often as there are rounds.
        threads: Of each runtime; None for their own choice.
        seed: Of the noise, or of the seeded values.
        progress: Told of every opening and call.

    Raises:
        InvalidBundle: A bundle is damaged or altered.
        InvalidModel: The model is not what the first bundle was made from.
        UsageError: A folder holds nothing that runs, or an artifact does not take the calls.
        RuntimeMissing: A runtime is not installed.
        StorageError: Reading or writing failed.
    """
    found = read_contenders(contenders)
    manifest = found[0].manifest
    assert manifest is not None
    if calls is None and model is not None:
        calls = reference_calls(
            manifest, model, steps=steps, call=call, seed=seed, progress=progress
        )
    given = calls if calls is not None else seeded_calls(manifest, seed=seed)
    records = {where: one for where, one in methods_of(manifest).items() if where in given}
    if not records:
        raise UsageError(
            "the calls are of no method in the first bundle",
            hint="give a --call that uses what was exported",
        )
    with tempfile.TemporaryDirectory(prefix="qdx-bench-") as work:
        inputs = Path(work) / "inputs.safetensors"
        _write_inputs({where: given[where] for where in records}, inputs)
        openings = min(openings, rounds)
        each = -(-rounds // openings)
        opened = [
            _open_and_measure(found, records, given, inputs, each, threads, progress)
            for _ in range(openings)
        ]
    per_step = {where: given[where].calls_per_step for where in records}
    return BenchReport(
        machine=_machine(),
        threads=threads,
        rounds=each * openings,
        openings=openings,
        inputs="seeded" if calls is None else "reference",
        calls_per_step={where: count for where, count in per_step.items() if count},
        contenders=tuple(map(over_openings, zip(*(results for results, _ in opened), strict=True))),
        timings=timings_of(
            _joined([taken for _, taken in opened]), per_step, found[0].name, openings
        ),
    )


def _open_and_measure(
    found: Sequence[Contender],
    records: Mapping[str, MethodRecord],
    given: Mapping[str, MethodCalls],
    inputs: Path,
    rounds: int,
    threads: int | None,
    progress: Progress,
) -> tuple[tuple[ContenderResult, ...], _AllTaken]:
    """Starts a process for each contender, opens what it has there, and takes turns."""
    with ExitStack() as stack:
        runs = [_Run(one, records, stack.enter_context(start_worker(one.name))) for one in found]
        with progress.task("opening", len(runs)) as task:
            for run in runs:
                run.open(inputs, threads)
                task.advance(1)
        taken = _measure(runs, records, given, rounds, progress)
        return tuple(run.result() for run in runs), taken


def _joined(opened: Sequence[_AllTaken]) -> _AllTaken:
    """The calls of all openings, one opening after the other."""
    return {
        where: {name: [call for taken in opened for call in taken[where][name]] for name in names}
        for where, names in opened[0].items()
    }


class _Run:
    """A contender and its process."""

    def __init__(
        self, contender: Contender, records: Mapping[str, MethodRecord], worker: Worker
    ) -> None:
        self.contender = contender
        folders = {where: contender.folder(where, record) for where, record in records.items()}
        self._folders = {where: path for where, path in folders.items() if path is not None}
        self._records = records
        self._worker = worker
        self._opened: dict[str, Any] = {}
        if not self._folders:
            raise UsageError(f"{quoted(contender.name)}: holds none of {', '.join(records)}")

    def open(self, inputs: Path, threads: int | None) -> None:
        """Opens the artifacts, one contender after the other."""
        contender = self.contender
        own = methods_of(contender.manifest) if contender.manifest is not None else self._records
        methods = {
            where: {
                "folder": str(folder.absolute()),
                "inputs": {port.name: port.argument for port in own[where].inputs},
                "adapter_inputs": sorted(own[where].adapter_inputs),
            }
            for where, folder in self._folders.items()
        }
        self._opened = self._worker.ask({
            "do": "open",
            "runtime": contender.runtime,
            "options": dict(contender.options),
            "threads": threads,
            "inputs": str(inputs),
            "methods": methods,
        })  # fmt: skip

    def has(self, where: str) -> bool:
        """Whether it has the method."""
        return where in self._folders

    def call(self, where: str, number: int) -> Taken:
        """Runs a call with the inputs of that number."""
        answer = self._worker.ask({"do": "run", "where": where, "call": number})
        return Taken(float(answer["wall_s"]), float(answer["cpu_s"]))

    def result(self) -> ContenderResult:
        """What is said of it as a whole, after the last call."""
        peak, before = (
            self._worker.ask({"do": "memory"})["peak_bytes"],
            self._opened["before_bytes"],
        )
        files = {
            path for folder in self._folders.values() for path in folder.iterdir() if path.is_file()
        }
        return ContenderResult(
            name=self.contender.name,
            runtime=self.contender.runtime,
            artifact_bytes=sum(path.stat().st_size for path in files),
            opening_seconds=self._opened["seconds"],
            memory_bytes=None if peak is None or before is None else peak - before,
            versions=self._opened["versions"],
            **self._compiled(),
        )

    def _compiled(self) -> dict[str, Any]:
        """What its engines were compiled for, and what was timed in their place; nothing where its own runtime ran."""
        backend = get_backend(self.contender.runtime)
        if not isinstance(backend, TellsCompiled) or backend.runs_here():
            return {}
        engines = {where: backend.compiled(folder) for where, folder in self._folders.items()}
        built = {where: one.facts() for where, one in engines.items() if one is not None}
        if not built:
            return {}
        return {"compiled": built, "timed": backend.proof([*self._folders.values()]).executed_by}


def _measure(
    runs: Sequence[_Run],
    records: Mapping[str, MethodRecord],
    calls: Mapping[str, MethodCalls],
    rounds: int,
    progress: Progress,
) -> _AllTaken:
    """Every method in turns."""
    taken = {}
    total = sum(run.has(where) for run in runs for where in records) * (rounds + WARM_UP_ROUNDS)
    with progress.task("measuring", total) as task:
        for where in records:
            turns = {run.contender.name: partial(run.call, where) for run in runs if run.has(where)}
            count = len(calls[where].inputs)
            taken[where] = take_turns(turns, rounds=rounds, inputs=count, task=task)
    return taken


def _write_inputs(calls: Mapping[str, MethodCalls], path: Path) -> None:
    """The inputs of every call, in a file that each process reads."""
    from safetensors.torch import save

    tensors = {
        f"{where}/{number}/{name}": tensor.detach().clone().contiguous()
        for where, method in calls.items()
        for number, inputs in enumerate(method.inputs)
        for name, tensor in inputs.items()
    }
    write_file(path, save(tensors))


def _machine() -> dict[str, str | int | None]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
    }
