"""Errors followed over a run of a pipeline with guidance and a sampler that remembers, against direct computation."""

from __future__ import annotations

import pytest
import torch

from qdx.analyze.course import record_course
from qdx.analyze.courses import CourseRunner, Watcher
from qdx.analyze.trajectory import PROBES, _followed, _gains, segments_of
from qdx.analyze.treatments import everywhere, half
from qdx.exporter.graph.execute.interpreter import run


@pytest.fixture(scope="module")
def session(followed_session):
    return followed_session


@pytest.fixture(scope="module")
def course(session):
    return record_course(CourseRunner.of(session.findings.runs), 0, session.prepared.traced)


@pytest.fixture(scope="module")
def errors(course):
    """A random error of every answer."""
    generator = torch.Generator().manual_seed(3)
    return {
        place: {
            name: torch.randn(one.shape, generator=generator)
            for name, one in course.made[place].outputs.items()
        }
        for place in course.denoising
    }


def moved(course, errors, size):
    """The final latents of a free run to whose answers errors are added."""
    place = iter(course.denoising)

    def compute(where, inputs):
        own = errors.get(next(place), {})
        answer = _run(course, where, inputs)
        return {name: one + size * own.get(name, 0.0) for name, one in answer.items()}

    return course.free(compute).latents[-1].double()


def _run(course, where, inputs):
    return run(course.graphs[where], inputs)


def test_the_record_is_the_run(course):
    again = course.free(lambda where, inputs: _run(course, where, inputs))

    assert course.steps == len(course.denoising) == 4  # PNDM calls twice in one of three steps
    for one, other in zip(course.latents, again.latents, strict=True):
        assert torch.equal(one, other)
    assert (again.products["images"] == course.products["images"]).all()


def test_what_errors_become_is_a_finite_difference(course, errors):
    found = course.propagated(errors)[-1].double()

    h = 1e-3
    expected = (moved(course, errors, h) - moved(course, errors, -h)) / (2 * h)
    assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_errors_of_single_calls_add_up(course, errors):
    whole = course.propagated(errors)[-1]
    parts = [course.propagated({place: errors[place]})[-1] for place in course.denoising]

    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-4)


def test_backward_products_are_the_transposed_forward_ones(course, errors):
    vector = torch.randn(course.latents[-1].shape, generator=torch.Generator().manual_seed(8))
    ((answers, predictions),) = course.backward([vector])

    assert set(answers) == set(course.denoising)
    assert set(predictions) == set(range(course.steps))
    for place in course.denoising:
        forward = course.propagated({place: errors[place]})[-1]
        back = sum(
            float((answers[place][name] * error).sum()) for name, error in errors[place].items()
        )
        assert back == pytest.approx(float((vector * forward).sum()), rel=1e-3)


def test_the_gain_of_the_last_step_is_the_samplers_own_factor(course):
    """Behind the last prediction there is the sampler alone, whose Jacobian is a number times the identity."""
    found = _gains(course, 0)["gains"]

    class Moves(Watcher):
        def before(self, at, prediction, sample):
            return prediction + (at.step == course.steps - 1), sample

        def after(self, at, latents):
            self.final = latents
            return latents

    watcher = Moves()
    course.runner.run(
        0, lambda place, where, _: course.made[place].outputs, watcher, steps=course.steps
    )
    change = (watcher.final - course.latents[-1]).abs()
    assert found[-1] == pytest.approx(float(change.mean()), rel=1e-3)
    assert float(change.std()) < 1e-3 * float(change.mean())
    assert PROBES > 1
    assert len(found) == course.steps


def test_shares_add_up_and_single_precision_is_followed(session, course):
    compute = everywhere(session.survey, 1, "int8").make()
    row = _followed(course, course.local_errors(compute), course.free(compute))

    assert sum(call["share"] for call in row["calls"]) == pytest.approx(1, abs=1e-3)
    assert row["steps"][-1]["norm_ratio"] == pytest.approx(1, abs=0.1)
    assert row["steps"][-1]["correlation"] > 0.98
    assert row["steps"][-1]["latents_noise"] == pytest.approx(row["latents_noise"])
    assert all(call["loss_penalty"] > 0 for call in row["calls"])


def test_float16_is_a_treatment_like_others(session, course):
    compute = half(session.survey).make()
    errors = course.local_errors(compute)

    for place, own in errors.items():
        noise = [float(e.norm() / course.made[place].outputs[n].norm()) for n, e in own.items()]
        assert 0 < max(noise) < 1e-2


def test_a_segment_alone_leaves_the_rest_float(course):
    def wrong(where, inputs):
        return {name: one + 1 for name, one in _run(course, where, inputs).items()}

    last = course.free(wrong, [course.steps - 1])

    assert torch.equal(last.latents[-2], course.latents[-2])
    assert not torch.equal(last.latents[-1], course.latents[-1])
    assert [len(one) for one in segments_of(12)] == [2, 2, 3, 2, 3]
    assert [list(one) for one in segments_of(2)] == [[0], [1]]


def test_a_pipeline_without_steps_is_refused(session, monkeypatch):
    from qdx.analyze import courses
    from qdx.exporter.errors import TargetRefusal

    monkeypatch.setattr(courses, "_steps", lambda _: False)
    with pytest.raises(TargetRefusal, match="no part of it has a `step`"):
        CourseRunner.of(session.findings.runs)
