"""Assignments measured whole: what the exported graph of the same options would do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.errors import UsageError

OPTIONS = ["int8", "int4", "int8/int8", "/int8"]


@pytest.fixture(scope="module")
def session(tiny_sd, plan_file):
    with open_session(
        tiny_sd,
        target="openvino",
        settings=AnalysisSettings(plan=plan_file, options=OPTIONS, calls=2, workers=1),
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


def test_plans_that_smooth_are_refused(tiny_sd, plan_file, tmp_path):
    plan = json.loads(plan_file.read_text()) | {"options": {"smoothing": {"alpha": 0.5}}}
    plan["rules"].append(
        {"select": {"component": "unet", "op": "conv2d"}, "inputs": {"dtype": "int8"}}
    )
    (tmp_path / "smooth.json").write_text(json.dumps(plan))
    with (
        open_session(
            tiny_sd, target="openvino", settings=AnalysisSettings(
                plan=tmp_path / "smooth.json", options=["int8/int8"], calls=1, workers=1,
            ),
        ) as found,
        pytest.raises(UsageError, match="smooths activations"),
    ):  # fmt: skip
        found.whole.measure([])
