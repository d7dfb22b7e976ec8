"""Components that do not compute answer in zeros, found once for calls whose outputs have the same shapes."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.capture import fake_answers
from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.fake_answers import FakeAnswers
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import TargetRefusal
from tests.support import tiny


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    return build_skeleton(
        read_pipeline_folder(tiny.build("ddpm", tmp_path_factory.mktemp("model")))
    )


@pytest.fixture
def runs(monkeypatch):
    """Calls that ran on fake tensors."""
    found = []
    real = fake_answers.fake_run

    def counting(skeleton, call, answered):
        found.append(call)
        return real(skeleton, call, answered)

    monkeypatch.setattr(fake_answers, "fake_run", counting)
    return found


def called(tensor, **arguments):
    def repeat(tensor, times=1, by=1.0, name="", tool=None):
        del by, name, tool
        return (tensor.repeat(times, 1), None)

    return LiveCall("unet", "forward", repeat, {"tensor": tensor, **arguments})


def test_a_schedule_of_many_steps_runs_once_on_fake_tensors(skeleton, runs):
    records = dry_run(skeleton, complete_call(skeleton.pipeline, {"num_inference_steps": 7}))
    assert (len(records), len(runs)) == (7, 1)


def test_answers_are_zeros_of_the_right_shapes_and_no_two_the_same_tensor(skeleton):
    answers = FakeAnswers(skeleton)
    (one, nothing), (other, _) = (answers(called(torch.ones(2, 3), times=2)) for _ in range(2))
    assert (tuple(one.shape), nothing) == ((4, 3), None)
    assert not one.any()
    one += 1
    assert not other.any()


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        ([{"by": 1.0}, {"by": 2.0}], 1),
        ([{"times": 1}, {"times": 2}], 2),
        ([{"name": "a"}, {"name": "b"}], 2),
        ([{"tool": object()}] * 2, 2),
        ([{"name": []}, {"name": {}}], 2),
        ([{}, {"tensor": torch.ones(1, 3)}], 2),
        ([{}, {"tensor": torch.ones(2, 3, dtype=torch.float16)}], 2),
    ],
    ids=["fractions", "whole numbers", "words", "objects", "containers", "shapes", "dtypes"],
)
def test_what_can_decide_a_shape_is_run_apart(skeleton, runs, arguments, times):
    answers = FakeAnswers(skeleton)
    shapes = [answers(called(**{"tensor": torch.ones(2, 3), **one}))[0].shape for one in arguments]
    assert len(runs) == times
    assert [shape[0] for shape in shapes] == [
        one.get("tensor", torch.ones(2, 3)).shape[0] * one.get("times", 1) for one in arguments
    ]


def test_an_object_in_an_output_is_made_for_each_call(skeleton, runs):
    """A pipeline could change it, such as a cache that grows."""

    class Cache:
        pass

    call = LiveCall("unet", "forward", lambda tensor: (tensor, Cache()), {"tensor": torch.ones(2)})
    answers = FakeAnswers(skeleton)
    caches = [answers(call)[1] for _ in range(2)]
    assert caches[0] is not caches[1]
    assert len(runs) == 2


def writing_into_a_cache(skeleton, monkeypatch, part):
    """A dry run of a pipeline whose component writes into a cache, of which each call takes a part."""

    def writing(self, sample, cache):
        cache[:, :1] = sample.mean()
        return (sample + cache.sum(),)

    def twice(self, sample):
        cache = torch.zeros(4, 2)
        for number in range(2):
            (sample,) = self.unet(sample, cache[part(number)])

    monkeypatch.setattr(type(skeleton.modules["unet"]), "forward", writing)
    monkeypatch.setattr(type(skeleton.pipeline), "__call__", twice)
    return dry_run(skeleton, {"sample": torch.zeros(1, 3)})


def test_what_one_call_writes_into_its_arguments_and_another_takes_is_refused(
    skeleton, monkeypatch
):
    with pytest.raises(TargetRefusal, match=r"`cache` takes what an earlier call wrote"):
        writing_into_a_cache(skeleton, monkeypatch, lambda _: slice(1, 3))


def test_writes_that_no_other_call_takes_are_no_matter(skeleton, monkeypatch):
    parts = [slice(0, 2), slice(2, 4)]
    assert len(writing_into_a_cache(skeleton, monkeypatch, parts.__getitem__)) == 2
