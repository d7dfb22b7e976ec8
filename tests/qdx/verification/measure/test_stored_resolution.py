"""A bundle is held against what its plan became when it was made, whatever today's file of its target says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import qdx.targets.profile as profile_module
from qdx.bundle import read_bundle
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.targets import load_target
from qdx.verification.measure.audit import audit_bundle
from qdx.verification.measure.quantized import quantized_model
from tests.support.layers import ROOT
from tests.support.quantizing import CALL, export, plan

TARGET = "onnxruntime"
CHANGES = (
    ('form = "native"', 'form = "simulated"'),
    ('dtype = "float32", rank = 0', 'dtype = "int64", rank = 1'),
    ("symmetric = false", "symmetric = true"),
)


def change_target(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has another qdx with other kernels, another layout and other choices."""
    shutil.copytree(ROOT / "targets", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    file = folder / f"{TARGET}.toml"
    text = file.read_text()
    for before, after in CHANGES:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    monkeypatch.setattr(profile_module, "_FOLDER", folder)


def test_another_file_of_the_target_changes_nothing(smallest, tmp_path, monkeypatch):
    model = smallest
    scheme = {"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}}
    export(model, tmp_path, plan(scheme), TARGET)
    bundle = read_bundle(tmp_path / TARGET)
    intent = plan_from_json(bundle.manifest.plan, source="plan")

    def found():
        made = quantized_model(bundle, intent, model)
        shapes = {where: graph.inputs for where, graph in made.graphs.items()}
        audits = audit_bundle(bundle, made.resolved, SILENT)
        ran = [
            (one.component, one.planned_macs, one.executed_macs, one.downgraded) for one in audits
        ]
        return made.resolved, shapes, ran

    source = trace_pipeline(model, dict(CALL))
    before = plan_graphs(source, intent, load_target(TARGET)).resolved
    resolved, shapes, ran = found()
    assert resolved == before
    assert ran[0][1] > 0
    change_target(tmp_path / "targets", monkeypatch)
    assert plan_graphs(source, intent, load_target(TARGET)).resolved != before
    assert found() == (before, shapes, ran)
