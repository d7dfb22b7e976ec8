"""A new metric is a value and a line of the registry: reports, tables, pages, gates and the plan's schema follow."""

from __future__ import annotations

import json

import pytest

import qdx
from qdx.exporter.errors import InvalidPlan
from qdx.exporter.measure.metrics import METRICS, Metric
from qdx.exporter.plan.schema.load import parse_plan
from qdx.exporter.plan.schema.plan import json_schema
from qdx.verification.judge.evaluate import gates_of
from qdx.verification.report.read import read_report
from tests.support.quantizing import WEIGHTS, export, plan
from tests.support.smallest import build_smallest

TOY = Metric(
    "relative_l1",
    label="relative L1",
    unit="%",
    better="less",
    compute=lambda reference, output: float(
        100 * (output - reference).abs().sum() / reference.abs().sum()
    ),
    levels=frozenset({"component", "lowering", "pipeline"}),
    meaning="sum of absolute differences over that of the reference, in hundredths",
)
LEVELS = ("component", "lowering", "pipeline")


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, TOY.name, TOY)
        yield


def bounded(most: float) -> dict:
    value = plan(WEIGHTS)
    value["gates"]["lowering"] = {"sqnr_db_min": 20}
    for level in LEVELS:
        value["gates"][level]["relative_l1_max"] = most
    return value


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest(tmp_path_factory.mktemp("smallest") / "model")


def verified(model, folder, most: float) -> qdx.Report:
    export(model, folder, bounded(most))
    return qdx.verify(folder / "onnxruntime", model=model, steps=2, report=folder / "report")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def report(model, folder):
    return verified(model, folder, 50)


def test_the_report_has_its_values_on_every_level(report, folder):
    found = json.loads((folder / "report" / "report.json").read_text())
    method = found["components"]["unet"]["methods"]["forward"]

    assert found["metrics"][-1]["name"] == "relative_l1"
    assert 0 < method["relative_l1"]["median"] <= method["relative_l1"]["max"] < 50
    assert all(call["relative_l1"] > 0 for call in method["measured"])
    assert all(call["relative_l1"] >= call["median_relative_l1"] for call in found["lockstep"])
    assert found["pipeline"]["outputs"]["images"]["relative_l1"] > 0
    assert found["samples"]["relative_l1"]["mean"] == found["pipeline"]["relative_l1"]


def test_the_tables_for_the_terminal_have_it(report):
    components = next(part for part in str(report).split("\n\n") if part.startswith("worst call"))
    heading, row = components.splitlines()
    value = report.stored.components["unet"].summary("relative_l1").max

    assert "relative L1, %" in heading
    assert f"{value:.4g}" in row.split()


def test_the_page_has_it(report, folder):
    page = (folder / "report" / "report.html").read_text()

    assert ">relative L1, %: greatest</th>" in page  # components
    assert page.count(">relative L1, %</th>") >= 2  # pictures, and call by call
    assert "unet: relative L1 in % against PyTorch, worst call" in page  # its gate


def test_a_plan_that_bounds_it_passes(report):
    gates = {gate.name: gate for gate in report.gates if "relative_l1" in gate.name}

    assert report.ok, str(report)
    assert set(gates) == {
        "unet.relative_l1",
        "unet.forward.lowering.relative_l1",
        "pipeline.relative_l1",
    }
    assert {gate.sense for gate in gates.values()} == {"at most"}


def test_a_plan_that_bounds_it_too_tightly_fails(model, tmp_path):
    report = verified(model, tmp_path, 1e-9)
    failed = {gate.name for gate in report.gates if not gate.ok}

    assert {"unet.relative_l1", "pipeline.relative_l1"} <= failed
    assert all("relative_l1" in name for name in failed)
    assert "FAILED  worst at forward, call" in str(report)


def test_what_it_measured_is_judged_again_without_running(report, folder):
    stored = read_report(folder / "report" / "report.json")
    tight = parse_plan(json.dumps(bounded(1e-9)), source="tight.json").gates

    assert gates_of(stored.contract, stored) == report.gates
    assert not all(gate.ok for gate in gates_of(tight, stored))


def test_the_schema_of_plans_knows_it():
    schema = json_schema()["$defs"]

    for level in LEVELS:
        name = f"{level.title()}Gates"
        key = schema[f"Asked{name}" if f"Asked{name}" in schema else name]["properties"][
            "relative_l1_max"
        ]
        assert key["description"] == f"Greatest {TOY.meaning}."
        assert key["minimum"] == 0


@pytest.mark.parametrize("bound", ["5", -1, True, None])
def test_its_bound_is_checked_as_every_other(bound):
    with pytest.raises(InvalidPlan, match=r"`gates\.component\.relative_l1_max` is"):
        parse_plan(json.dumps(bounded(bound)), source="plan.json")


def test_a_plan_cannot_ask_for_a_metric_that_is_not_registered(monkeypatch):
    monkeypatch.delitem(METRICS, TOY.name)

    with pytest.raises(InvalidPlan, match="unknown key `relative_l1_max`"):
        parse_plan(json.dumps(bounded(5)), source="plan.json")
