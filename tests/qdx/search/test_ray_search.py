"""An analysis and a search on a cluster of three nodes, two of which are lost in the midst of it, one after the other."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager

import pytest

from qdx.analyze.analyze import analyze
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.plan.schema.load import load_plan
from qdx.search.budgets import Demand, read_budgets
from qdx.search.read import read_analysis
from qdx.search.run import run
from qdx.targets import load_target

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`"),
]
ASKED = {
    "plan": "w8a8",
    "call": {"num_inference_steps": 2},
    "options": ["int8", "int4"],
    "calls": 2,
}


class Watching:
    """Progress that does something in the midst of a task."""

    def __init__(self, name, then):
        self.said = []
        self.done = 0
        self._name, self._then = name, then

    def say(self, text):
        self.said.append(text)

    @contextmanager
    def task(self, name, total=None, *, unit=""):
        self._active = name == self._name
        yield self

    def advance(self, n=1):
        if self._active:
            self.done += n
            if self._then is not None:
                then, self._then = self._then, None
                then()

    def expect(self, seconds_left):
        pass


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory):
    from tests.support.ray_nodes import nodes

    with nodes(3, tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


def test_what_is_found_is_what_one_machine_finds(smallest, tmp_path, three_nodes, monkeypatch):
    from tests.support.ray_nodes import kill

    monkeypatch.setattr("qdx.sweep.jobs._KEEP_EVERY_S", 0.0)  # told of every request
    found = []
    for cluster in (None, three_nodes.address):
        folder = tmp_path / f"{len(found)}"
        there = cluster is not None
        analyzing = Watching("analyzing", (lambda: kill(three_nodes)) if there else None)
        settings = AnalysisSettings(
            parts=("noise",), **ASKED, workers=None if there else 1, cluster=cluster
        )
        analyze(smallest, target="openvino", output=folder, settings=settings, progress=analyzing)
        searching = Watching("measuring plans", (lambda: kill(three_nodes)) if there else None)
        plan = run(
            smallest, read_analysis(folder), load_target("openvino"), load_plan("w8a8"),
            Demand(read_budgets(["average_bits=7"])), name="found", measurements=20,
            workers=None if there else 1, cluster=cluster, progress=searching,
        )  # fmt: skip
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        found.append((files, plan.to_json(), analyzing, searching))

    here, there = found
    assert here[0] == there[0]
    assert here[1] == there[1]
    assert len(three_nodes.worker_nodes) == 1
    assert there[2].done == here[2].done > 20
    assert there[3].done == here[3].done > 20
    assert any("died; what it was at is asked again" in text for text in there[3].said)
