"""A small pipeline with guidance, analyzed in seconds."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from qdx.analyze.analyze import analyze
from qdx.analyze.folder import read_analysis
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings

STEPS = 3
PLAN = {
    "schema": "qdx.plan/1",
    "name": "tested",
    "rules": [{"select": {"component": "*"}, "weights": {"dtype": "float"}}],
    "calibration": {"samples": 2, "steps": STEPS, "timestep_groups": 2},
    "gates": {},
}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Analyzed:
    """An analysis, and its files."""

    analysis: Any
    noise: Any
    folder: Path

    @property
    def files(self) -> dict[str, bytes]:
        """Their bytes by name."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def ranking(self, label: str) -> list[str]:
        """The first operation of each group, the one that an option hurts most first."""
        option = next(one.id for one in self.analysis.options if one.label == label)
        groups = [one for one in self.analysis.groups if option in one.options]
        noise = self.analysis.single
        groups.sort(key=lambda one: -noise[one.id, option].prediction)
        return [one.sites[0] for one in groups]


@pytest.fixture(scope="session")
def plan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps(PLAN))
    return path


@pytest.fixture(scope="session")
def followed_session(tiny_sd, plan_file):
    """A session upon one step, for what goes over whole runs and back through graphs."""
    settings = AnalysisSettings(plan=plan_file, options=["int8"], calls=1, workers=1)
    with open_session(tiny_sd, target="openvino", settings=settings) as found:
        yield found


@pytest.fixture
def analyzed(tmp_path, plan_file):
    """Analyzes a model."""

    def run(model, name="analysis", *, target="openvino", force=False, **given):
        settings = AnalysisSettings(
            **{"plan": plan_file, "workers": 1, "calls": 3, "parts": ["noise"]} | given
        )
        analyze(model, output=tmp_path / name, target=target, settings=settings, force=force)
        return Analyzed(*read_analysis(tmp_path / name), tmp_path / name)

    return run


@pytest.fixture(scope="session")
def analyzed_once(tiny_sd, plan_file, tmp_path_factory):
    """Analyzes the small model with some options, once for all tests."""
    known = {}

    def run(*options):
        if options not in known:
            folder = tmp_path_factory.mktemp("analyzed") / "analysis"
            analyze(
                tiny_sd, output=folder, target="openvino", settings=AnalysisSettings(
                    plan=plan_file, workers=1, calls=3, options=list(options) or None, parts=["noise"],
                ),
            )  # fmt: skip
            known[options] = Analyzed(*read_analysis(folder), folder)
        return known[options]

    return run


@pytest.fixture
def altered(tiny_sd, tmp_path):
    """Copies the model with weights of its UNet changed."""

    def change(function, name="altered"):
        shutil.copytree(tiny_sd, tmp_path / name)
        weights = load_file(tmp_path / name / WEIGHTS)
        function(weights)
        save_file({n: t.contiguous() for n, t in weights.items()}, tmp_path / name / WEIGHTS)
        return tmp_path / name

    return change
