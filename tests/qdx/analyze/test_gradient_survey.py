"""Gradients of an analysis against the same numbers computed from the weights themselves."""

from __future__ import annotations

import pytest

from qdx.analyze.gradient_survey import GradientSurvey
from qdx.analyze.gradients import weight_gradients
from qdx.analyze.weight_changes import changes_weight, weight_change
from qdx.exporter.errors import InsufficientMemory
from qdx.exporter.progress import SILENT

WHERE = "unet.forward"


@pytest.fixture(scope="module")
def pair(followed_session):
    return followed_session.prepared.graphs[WHERE, 1].pair


def test_changes_of_weights_lead_to_the_grid_of_eight_bits(pair):
    for key, site in pair.sites.items():
        if not changes_weight(pair, key):
            continue
        weight = pair.base.weights[site.weight].read().flatten(1)
        change = weight_change(pair, key).flatten(1)
        step = weight.abs().amax(1, keepdim=True) / 127
        assert change.abs().max() > 0
        assert (change.abs() <= 0.5001 * step + 1e-9).all()
        whole = (weight + change) / step
        assert (whole - whole.round()).abs().max() < 1e-2


def test_numbers_are_those_of_the_weights(followed_session, pair, tmp_path):
    survey = GradientSurvey(followed_session.survey)
    results = survey.run(tmp_path, workers=1, progress=SILENT)
    (key,) = results
    (recorded,) = followed_session.survey.recorded
    found = dict(zip(survey._names(recorded), results[key].numbers, strict=True))
    names = [site.weight for site in pair.sites.values() if site.weight]

    direct = weight_gradients(
        followed_session.prepared.traced[WHERE],
        [dict(one) for one in recorded.inputs],
        names,
        seed=int(key[:8], 16),
    )
    for group, bound in enumerate(followed_session.survey.bound[WHERE]):
        change = noise = 0.0
        for site in bound.sites:
            moved = weight_change(pair, site.key).double()
            change += float(moved.square().sum())
            noise += float((direct.fisher[site.weight].double() * moved.square()).sum())
        own = {site.weight: direct.sensitivity[site.weight] for site in bound.sites}
        assert found["sensitivity", group, 0] == pytest.approx(sum(own.values()), rel=1e-4)
        assert found["change", group, 1] == pytest.approx(change, rel=1e-4)
        assert found["fisher", group, 1] == pytest.approx(noise, rel=1e-4)


def test_what_is_known_is_not_computed_again(followed_session, tmp_path, monkeypatch):
    survey = GradientSurvey(followed_session.survey)
    first = survey.run(tmp_path, workers=1, progress=SILENT)
    monkeypatch.setattr(GradientSurvey, "_gradients", lambda *_: pytest.fail("again"))

    assert survey.run(tmp_path, workers=1, progress=SILENT).keys() == first.keys()


def test_too_little_memory_is_refused_before_anything_is_measured(followed_session, monkeypatch):
    from qdx.analyze import backward_memory

    graphs = [followed_session.prepared.traced[WHERE]]
    needed = backward_memory.gradient_bytes(graphs[0])
    weights = sum(
        w.read().numel() for n, w in graphs[0].weights.items() if n not in graphs[0].weights.aliases
    )
    assert needed > 8 * weights
    monkeypatch.setattr(backward_memory, "available_memory_bytes", lambda: needed - 1)
    with pytest.raises(InsufficientMemory, match="analyzing gradients") as refused:
        backward_memory.check_backward_memory(graphs, ("noise", "gradients"))
    assert "--parts noise" in refused.value.hint
    backward_memory.check_backward_memory(graphs, ("noise", "trajectory"))
    assert backward_memory.workers_for(needed, 4) == 1
