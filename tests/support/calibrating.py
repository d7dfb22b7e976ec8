"""Calibrations whose messages are heard, and which can be ended at any of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qdx.calibration import run
from qdx.calibration.estimate import Pace
from qdx.calibration.run import calibrate
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.plan.schema.settings import Calibration
from qdx.exporter.progress import SILENT
from qdx.source.pipeline import trace_pipeline


class Ended(BaseException):
    """The calibration is ended here."""


class Told:
    """What a calibration says, and every call that it tells of."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.calls: list[dict[str, Any]] = []

    @contextmanager
    def task(self, name: str, total: int | None = None, *, unit: str = "") -> Iterator[Any]:
        del total, unit
        with SILENT.task(name) as task:
            yield task

    def say(self, text: str) -> None:
        self.said.append(text)

    def hear(self, patch: Any, *, end_after: int | None = None) -> Told:
        """Hears the messages of every calibration from now on; ends it after so many computed calls."""
        told = self

        class Hearing(Pace):
            def told(self, message):
                super().told(message)
                if "where" in message:
                    told.calls.append(dict(message))
                    if end_after is not None and len(told.computed) >= end_after:
                        raise Ended

        patch.setattr(run, "Pace", Hearing)
        return self

    @property
    def computed(self) -> list[dict[str, Any]]:
        """Calls that were not given an answer that was kept."""
        return [call for call in self.calls if not call["replayed"]]

    def says(self, words: str) -> int:
        """How many lines hold these words."""
        return sum(words in line for line in self.said)


def prepared(model: Path, call: dict[str, Any], components: list[str] | None = None) -> Any:
    """A pipeline with its graphs and their sites."""
    traced = trace_pipeline(model, dict(call), components=components)
    graphs = {where: traced.graph(where) for where in traced.chosen}
    return SimpleNamespace(
        folder=traced.folder,
        graphs=graphs,
        sites={where: sites(graph) for where, graph in graphs.items()},
        digests=traced.source_digests,
        call=call,
    )


def calibrated(one: Any, settings: dict[str, Any] | None = None, **arguments: Any) -> Ranges:
    """Calibrates it: two samples of four steps in two groups, unless other settings are given."""
    given = {"samples": 2, "steps": 4, "timestep_groups": 2, "observed": 1.0, **(settings or {})}
    arguments = {"call": dict(one.call), "sites": one.sites, "workers": 1, **arguments}
    return calibrate(
        one.folder,
        one.graphs,
        arguments.pop("sites"),
        settings=Calibration(**given),
        digests=one.digests,
        **arguments,
    )


def sample_files(work: Path, words: str = "*") -> list[Path]:
    """Files of samples under way."""
    return sorted(path for path in work.rglob(words) if path.is_file() and "sample-" in str(path))


def calibrated_run(one, prompts=None, call=None, own=None, workers=1, **settings):
    """Every step observed, unless the settings say otherwise."""
    given = dict(one.call if call is None else call)
    chosen = {"observed": 1.0, "call": own, **settings}
    return calibrated(one, chosen, prompts=prompts, call=given, workers=workers)
