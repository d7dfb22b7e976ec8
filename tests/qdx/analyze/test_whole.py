"""Assignments measured whole: what the exported graph of the same options would do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qdx.analyze.noise import relative_noise
from qdx.analyze.report import groups_of
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.analyze.whole import _preparing
from qdx.backends.registry import get_backend
from qdx.calibration.record import record_ranges
from qdx.compile.recipe import choose_recipe
from qdx.exporter.errors import UsageError
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.transforms.low_rank import SplitLowRank
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.exporter.transforms.registry import TRANSFORMS
from qdx.exporter.transforms.smoothing import Smooth
from qdx.source.planned import plan_graphs

OPTIONS = ["int8", "int4", "int8/int8", "/int8"]


@pytest.fixture(scope="module")
def session(tiny_sd, plan_file):
    with open_session(
        tiny_sd,
        target="openvino",
        settings=AnalysisSettings(
            parts=("noise",), plan=plan_file, options=OPTIONS, calls=2, workers=1
        ),
    ) as found:
        yield found


@pytest.fixture(scope="module")
def analysis(session):
    return session.analysis()[0]


def all_at(analysis, option):
    return tuple(option if option in group.options else 0 for group in analysis.groups)


def test_float_is_exact(session, analysis):
    (found,) = session.whole.measure([all_at(analysis, 0)])

    assert set(found.noise.values()) == {0.0}
    assert not found.errors["prediction"].any()


@pytest.mark.parametrize("option", [1, 2, 3])
def test_one_option_everywhere_is_the_cumulative_noise(session, analysis, option):
    (found,) = session.whole.measure([all_at(analysis, option)])

    row = analysis.cumulative["unet.forward", option]
    for name, value in found.noise.items():
        # Attention is open here, and its floats differ in their last bits.
        assert value == pytest.approx(getattr(row, name), rel=2e-2)


def test_one_group_alone_is_its_single_noise(session, analysis):
    wanted = []
    for group in analysis.groups[::5]:
        one = [0] * len(analysis.groups)
        one[group.id] = group.options[-1]
        wanted.append(tuple(one))
    for one, found in zip(wanted, session.whole.measure(wanted), strict=True):
        (group,) = [number for number, option in enumerate(one) if option]
        row = analysis.single[group, one[group]]
        assert found.noise["prediction"] == pytest.approx(row.prediction, rel=2e-2)
        assert found.noise["guidance"] == pytest.approx(row.guidance, rel=2e-2)


def test_weights_inputs_and_products_mix_and_neighbours_in_the_batch_change_nothing(
    session, analysis
):
    generator = np.random.default_rng(0)
    mixed = [
        tuple(int(generator.choice(group.options)) for group in analysis.groups) for _ in range(3)
    ]
    near = [(*mixed[0][:-1], 0), (0, *mixed[0][1:])]
    together = session.whole.measure([*mixed, *near, mixed[0]])

    assert together[-1].noise == together[0].noise
    for one, found in zip([*mixed, *near], together, strict=False):
        assert float(
            np.square(found.errors["prediction"], dtype=np.float64).sum()
        ) == pytest.approx(found.noise["prediction"], rel=1e-5)
        assert 0 < found.noise["prediction"] < 10, one


def test_what_was_measured_is_not_measured_again(session, analysis, monkeypatch):
    wanted = [all_at(analysis, 1), all_at(analysis, 2)]
    before = session.whole.measure(wanted)
    monkeypatch.setattr(type(session.whole), "_measure", lambda *_: pytest.fail("measured again"))

    assert [one.noise for one in session.whole.measure(wanted[::-1])] == [
        one.noise for one in before[::-1]
    ]


def test_an_option_that_a_group_does_not_have(session, analysis):
    with pytest.raises(KeyError):
        session.whole.measure([tuple(9 for _ in analysis.groups)])


@pytest.fixture(scope="module")
def smooth_plan(plan_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("smooth") / "smooth.json"
    plan = json.loads(plan_file.read_text()) | {"options": {"smoothing": {"alpha": 0.5}}}
    plan["rules"].append(
        {"select": {"component": "unet", "op": "conv2d"}, "inputs": {"dtype": "int8"}}
    )
    path.write_text(json.dumps(plan))
    return path


@pytest.fixture(scope="module")
def smooth(tiny_sd, smooth_plan):
    asked = AnalysisSettings(
        parts=("noise",),
        plan=smooth_plan,
        options=["int8/int8", "/int8", "int4/int8~rank4"],
        calls=2,
        workers=1,
    )
    with open_session(tiny_sd, target="openvino", settings=asked) as found:
        yield found


def exported_noise(session, options):
    """The noise of the prediction on the graph that an export of these options makes, calibrated for them alone."""
    findings = session.findings
    groups = groups_of(findings)[0]
    chosen = {key: option for group, option in zip(groups, options, strict=True) for key in group.sites}  # fmt: skip
    rules = findings.base.to_json()["rules"][:1]
    for one in findings.offered:
        keys = [key for key, option in chosen.items() if option == one.option.id]
        asked = one.option.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        rules += [
            {"id": f"{one.option.id}.{start}", "select": {"component": "unet", "name": keys[start : start + 64]}, "when": "always"}
            | {part: asked[part] for part in ("weights", "inputs") if part in asked}
            for start in range(0, len(keys), 64)
        ]  # fmt: skip
    plan = plan_from_json({**findings.base.to_json(), "rules": rules}, source="exported")
    planned = plan_graphs(findings.source, plan, findings.profile)
    ranges = record_ranges(
        findings.source, plan, findings.source.call, planned=planned,
        choices=findings.profile.choices, workers=1,
    )  # fmt: skip
    graph = planned.graphs["unet.forward"]
    base, recipe = choose_recipe(graph, planned.resolved, ranges, get_backend("openvino"))
    quantized = quantized_graph(base, recipe)
    noises = []
    for recorded in findings.recorded:
        for inputs in recorded.inputs:
            (reference,), (found,) = (run(one, inputs).values() for one in (graph, quantized))
            noises.append(recorded.moment.weight / len(recorded.inputs) * relative_noise(reference, found))  # fmt: skip
    return sum(noises)


@pytest.mark.parametrize("seed", [pytest.param(None, marks=pytest.mark.slow), 0])
def test_smooth_activations_are_measured_as_they_are_exported(smooth, seed):
    groups = groups_of(smooth.findings)[0]
    generator = np.random.default_rng(seed)
    options = tuple(
        group.options[-1] if seed is None else int(generator.choice(group.options))
        for group in groups
    )
    (found,) = smooth.whole.measure([options])

    assert any(one.recipe.find(Smooth) for one in smooth.prepared.graphs.values())
    # Apart from a calibration whose other activations are not smooth.
    assert found.noise["prediction"] == pytest.approx(exported_noise(smooth, options), rel=0.05)


def test_weights_alone_beside_smooth_activations_are_refused(tiny_sd, smooth_plan):
    with (
        open_session(
            tiny_sd, target="openvino", settings=AnalysisSettings(
                parts=("noise",), plan=smooth_plan, options=["int8", "int8/int8"], calls=1, workers=1,
            ),
        ) as found,
        pytest.raises(UsageError, match="weights alone are not measured beside smooth ones"),
    ):  # fmt: skip
        found.whole.measure([])


def test_what_prepares_the_float_graph_is_applied_in_the_order_of_recipes(smooth):
    every = [one for (_, _), one in smooth.prepared.graphs.items()]
    assert any(one.recipe.find(SplitLowRank) for one in every)
    for options in (every, every[::-1]):
        kinds = [TRANSFORMS.index(type(one)) for one in _preparing(options)]
        assert kinds == sorted(kinds)
        assert TRANSFORMS.index(Smooth) in kinds
        assert TRANSFORMS.index(SplitLowRank) not in kinds


def test_many_are_measured_in_several_parts_with_the_same_bits(session, analysis, tmp_path):
    changed = [group for group in analysis.groups if group.options][:33]
    wanted = [
        tuple(one.options[-1] if group.id == one.id else 0 for group in analysis.groups)
        for one in changed
    ]
    kind = type(session.whole)
    parted = kind.of(session.survey, tmp_path / "parted", workers=2, progress=session.progress)
    alone = kind.of(session.survey, tmp_path / "alone", workers=1, progress=session.progress)

    assert len(parted._portions(len(wanted))) > len(session.survey.recorded)
    for some, found in zip(wanted, parted.measure(wanted), strict=True):
        (expected,) = alone.measure([some])
        assert found.noise == expected.noise
        assert all((found.errors[name] == expected.errors[name]).all() for name in found.errors)
    assert parted.measure([]) == []
