"""Options with methods: what is measured of them is what an export of the found plan makes."""

from __future__ import annotations

import json

import pytest
import torch

from qdx.analyze.noise import relative_noise
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.analyze.weight_changes import weight_change
from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.exporter.formats.rounding import ROUNDINGS
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.transforms.low_rank import SplitLowRank
from qdx.exporter.transforms.rounding import RoundWeights
from qdx.search.outcomes import pipeline_of
from qdx.search.write_plan import assigned_of, write_plan
from qdx.tune import learner
from tests.support.quantizing import CALL, export

WHERE = "unet.forward"
OPTIONS = ["int4", "int4~gptq", "int4~rank2", "int4~rank2~gptq", "int3*1.15~gptq"]
INT4, GPTQ, RANK, BOTH, INT3 = range(1, 6)
PLAN = {
    "schema": "qdx.plan/1",
    "name": "tested",
    "rules": [{"select": {"component": "*"}, "weights": {"dtype": "float"}}],
    "calibration": {"samples": 1, "steps": 3},
    "gates": {},
}


@pytest.fixture(scope="module")
def passes(tmp_path_factory):
    """A file with a line for each time that second moments are streamed."""
    return tmp_path_factory.mktemp("passes") / "lines"


@pytest.fixture(scope="module")
def session(smallest, tmp_path_factory, passes):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps(PLAN))
    settings = AnalysisSettings(
        parts=("noise",), plan=path, call=dict(CALL), options=OPTIONS, calls=2, workers=1
    )
    streamed = learner.second_moments

    def told(graph, calls, wanted, **given):
        wanted = list(wanted)
        with passes.open("a") as file:
            file.write(f"{len(wanted)}\n")
        return streamed(graph, calls, wanted, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "second_moments", told)
        with open_session(smallest, target="openvino", settings=settings) as found:
            yield found


@pytest.fixture(scope="module")
def analysis(session):
    return session.analysis()[0]


@pytest.fixture(scope="module")
def mixed(analysis):
    """An assignment in which options with methods, without, and float stand beside each other."""
    order = [BOTH, GPTQ, INT4, RANK, 0]
    return tuple(
        option if (option := order[group.id % len(order)]) in group.options else GPTQ
        for group in analysis.groups
    )


@pytest.fixture(scope="module")
def found_plan(session, analysis, mixed):
    findings = session.findings
    pipeline = pipeline_of(findings.source, findings.profile, findings.base)
    return write_plan(
        findings.base, pipeline, analysis.options, assigned_of(analysis.groups, mixed),
        name="found", description="as assigned", why=lambda option, _: option.label,
    )  # fmt: skip


@pytest.fixture(scope="module")
def exported(smallest, found_plan, tmp_path_factory):
    """What an export of the plan has of each operation, and the recipe."""
    folder = tmp_path_factory.mktemp("exported")
    bundle = export(smallest, folder, found_plan.to_json(), "openvino").bundle
    return read_recipe(bundle / "unet")


def quantized_by(session, mixed, analysis):
    """By site, the graph of its option in the session."""
    graphs = session.prepared.graphs
    return {
        key: graphs[WHERE, mixed[group.id]]
        for group in analysis.groups
        for key in group.sites
        if mixed[group.id]
    }


def test_second_moments_are_streamed_once_for_all_options(session, passes):
    lessons = 2 * len(session.survey.bound[WHERE])  # alone and beside branches
    assert len(passes.read_text().splitlines()) == 1
    assert len(session.learned.codes) >= lessons


def test_a_plan_says_the_methods_as_a_person_would(found_plan):
    text = found_plan.to_json()["rules"]
    weights = [rule["weights"] for rule in text if "weights" in rule]

    plain = {"dtype": "int4", "granularity": "channel", "symmetric": True, "observer": "mse"}
    assert {**plain, "rounding": "gptq"} in weights
    assert {**plain, "low_rank": {"rank": 2}} in weights
    assert {**plain, "low_rank": {"rank": 2}, "rounding": "gptq"} in weights
    assert any(rule.get("id", "").startswith("int4-rank2-gptq") for rule in text)


def test_an_export_stores_what_was_measured(session, analysis, mixed, exported):
    by_site = quantized_by(session, mixed, analysis)
    rounding, split = exported.find(RoundWeights), exported.find(SplitLowRank)
    assert rounding is not None
    assert split is not None
    learned = 0
    for key, made in by_site.items():
        own = made.recipe.find(RoundWeights)
        if own is None or key not in own.sites:
            assert key not in rounding.sites
            continue
        learned += 1
        assert ROUNDINGS[own.sites[key]].by_calls
        assert torch.equal(rounding.learned[f"{key}.codes"], own.learned[f"{key}.codes"]), key
    assert learned > 5
    for name, branch in split.branches.items():
        own = by_site[branch.sites[0]].recipe.find(SplitLowRank).branches[name]
        assert torch.equal(branch.up, own.up)
        assert torch.equal(branch.down, own.down)
    assert len(split.branches) > 5


def test_an_assignment_measured_whole_is_the_exported_graph(session, mixed, exported):
    (found,) = session.whole.measure([mixed])

    graph = session.prepared.traced[WHERE]
    _, quantized = rebuilt(graph, exported)
    noise = 0.0
    for recorded in session.survey.recorded:
        for inputs in recorded.inputs:
            (reference,), (other,) = (run(one, inputs).values() for one in (graph, quantized))
            share = recorded.moment.weight / len(recorded.inputs)
            noise += share * relative_noise(reference, other)
    assert found.noise["prediction"] == pytest.approx(noise, rel=1e-4)


def test_methods_lose_less(analysis):
    noise = {option: analysis.cumulative[WHERE, option].prediction for option in range(1, 6)}

    assert noise[GPTQ] < 0.9 * noise[INT4]
    assert noise[BOTH] < 0.9 * noise[RANK]
    assert noise[RANK] < noise[INT4]


def test_a_branch_costs_bytes_and_work_and_rounding_none(analysis):
    for group in analysis.groups:
        offers = {one.option: one for one in group.offers}
        assert offers[GPTQ].bytes == offers[INT4].bytes
        assert offers[GPTQ].macs_beside == 0
        if RANK in offers:
            assert offers[BOTH].bytes == offers[RANK].bytes > offers[INT4].bytes
            assert offers[BOTH].macs_beside == offers[RANK].macs_beside > 0


def test_a_weight_is_changed_by_what_its_branch_does_not_make_up_for(session):
    plain, branched = (session.prepared.graphs[WHERE, one] for one in (INT4, RANK))
    changes = [
        (
            float(weight_change(plain.pair, key).norm()),
            float(weight_change(branched.pair, key).norm()),
        )
        for key in branched.pair.sites
    ]

    assert all(0 < with_branch < 1.2 * without for without, with_branch in changes)
    # Forgotten, it would be most of the change.
    split = branched.recipe.find(SplitLowRank)
    lost = [float((one.up @ one.down).norm()) for one in split.branches.values()]
    assert sum(lost) > 2 * sum(one for _, one in changes)


def test_what_a_measurement_is_known_by_tells_methods_apart(session):
    survey = session.survey
    keys = {}
    for job in survey.every:
        assert keys.setdefault(job.key, (job.recorded, job.group, job.option)) == (
            job.recorded, job.group, job.option,
        )  # fmt: skip
    assert len(keys) == survey.jobs
