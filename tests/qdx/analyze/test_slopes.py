"""Slopes of the noise by options, against differences of the noise itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from qdx.analyze.noise import measured
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.analyze.slopes import slopes
from qdx.exporter.errors import InsufficientMemory
from qdx.exporter.measure.reruns import Reruns

NOISES = {"prediction": 1.0, "guidance": 0.5}
STEP = 0.02


@pytest.fixture(scope="module")
def session(tiny_sd, plan_file):
    asked = AnalysisSettings(
        parts=("noise",), plan=plan_file, options=["int4", "int8"], calls=2, workers=1
    )
    with open_session(tiny_sd, target="openvino", settings=asked) as found:
        yield found


def noise_at(whole, changed):
    """The noise that counts, of any computations of operations."""
    total = 0.0
    for recorded in whole.survey.recorded:
        where, weight = recorded.moment.where, recorded.moment.weight
        bench, floats = whole.survey.bench(recorded), whole.floats[where]
        calls = [
            (Reruns(floats, one, 1).outputs, Reruns(floats, one, 1).run(changed))
            for one in bench.inputs
        ]
        rows = measured(calls, bench.guidance)
        total += weight * sum(row[0] for row in rows) / len(rows) * NOISES["prediction"]
        total += weight * sum(row[3] for row in rows) / len(rows) * NOISES["guidance"]
    return total


def between(one, other, share):
    """Computes an operation a part of the way from one option to another."""
    return SimpleNamespace(
        site_result=lambda key, values: (
            (1 - share) * one.site_result(key, values) + share * other.site_result(key, values)
        )
    )


def test_a_slope_is_the_derivative_of_the_noise_on_the_way_to_an_option(session):
    whole = session.whole
    (where,) = whole.options
    assignment = [1] * len(whole.groups[where])

    found = slopes(whole, assignment, NOISES)

    pairs = {option: whole.pairs[where, option][1] for option in (1, 2)}
    assert {option for _, option in found} == {0, 2}
    largest = max(abs(value) for value in found.values())
    for group in range(0, len(assignment), 7):
        base = whole.changed(assignment, where)
        sides = []
        for share in (-STEP, STEP):
            blend = between(pairs[1], pairs[2], share)
            sides.append(
                noise_at(whole, base | dict.fromkeys(dict(whole.groups[where])[group], blend))
            )
        direct = (sides[1] - sides[0]) / (2 * STEP)
        assert found[group, 2] == pytest.approx(direct, rel=0.02, abs=2e-3 * largest)


def test_too_little_memory_is_refused(session, monkeypatch):
    monkeypatch.setattr("qdx.analyze.slopes.available_memory_bytes", lambda: 1000)

    with pytest.raises(InsufficientMemory, match="following gradients with 1 worker"):
        slopes(session.whole, [1] * len(session.whole.groups["unet.forward"]), NOISES)
