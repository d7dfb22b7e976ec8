"""Calls that a bundle was not calibrated for are told of, with both numbers and the way out."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch

from qdx.bundle.manifest import Manifest
from qdx.exporter.capture.cut_prompts import Tokenizing
from qdx.exporter.cautions import collected
from qdx.runtime.unusual_calls import UnusualCalls, tell_unusual_calls
from tests.support.bundles import MANIFEST

TIMESTEPS = {"unet.forward": {"input": "timestep", "highest": 901.0, "lowest": 1.0, "count": 10}}


def said(task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with collected() as found:
            task()
    return found


def steps_said(calibrated, call):
    unusual = UnusualCalls({"steps": calibrated})
    return said(lambda: unusual.begin(call, Tokenizing(), longer=False))


def run_at(*timesteps, record=TIMESTEPS):
    unusual = UnusualCalls({"timesteps": record})
    return said(
        lambda: [
            unusual.observe("unet.forward", {"timestep": torch.tensor(float(one))})
            for one in timesteps
        ]
    )


def test_one_step_of_calibration_and_twenty_of_a_run_are_both_named():
    (text,) = steps_said(1, {"num_inference_steps": 20})

    assert text.startswith("this bundle was calibrated on 1 step, and 20 are run: ")
    assert "run 1, or export again with `num_inference_steps` 20 in --call" in text


@pytest.mark.parametrize(
    ("calibrated", "asked", "told"),
    [(1, 1, 0), (1, 2, 1), (4, 4, 0), (4, 6, 0), (4, 8, 1), (4, 20, 1), (9, 50, 1), (10, 50, 0), (25, 1000, 0), (20, 1, 0)],
)  # fmt: skip
def test_few_steps_are_fewer_than_the_run_s_half_and_than_tenths_of_a_schedule(
    calibrated, asked, told
):
    assert len(steps_said(calibrated, {"num_inference_steps": asked})) == told


def test_a_schedule_of_the_caller_s_own_counts_by_its_length():
    assert len(steps_said(1, {"num_inference_steps": 1, "timesteps": [9, 5, 1]})) == 1
    assert steps_said(1, {"num_inference_steps": 50, "sigmas": [1.0]}) == []


def test_it_is_said_once_for_each_number_of_steps():
    unusual = UnusualCalls({"steps": 1})

    def calls():
        for steps in (20, 20, 30):
            unusual.begin({"num_inference_steps": steps}, Tokenizing(), longer=False)

    assert len(said(calls)) == 2


def test_timesteps_between_and_beside_those_of_the_calibration_are_usual():
    assert run_at(950, 901, 433, 1, 0) == []


def test_a_timestep_far_outside_is_told_once():
    (text,) = run_at(1100, 1200)

    assert text.startswith("`unet.forward` is run at timestep 1100, and calibration saw 901 to 1: ")
    assert "export again with a --call like this one" in text


@pytest.mark.parametrize(
    "record",
    [None, 3, {}, {"steps": "x", "timesteps": 3}, {"steps": True, "timesteps": {"unet.forward": 1}},
     {"timesteps": {"unet.forward": {"input": "timestep", "highest": "1", "lowest": None, "count": 2}}},
     {"timesteps": {"unet.forward": {"input": 5}}}],
)  # fmt: skip
def test_a_record_of_another_form_tells_nothing(record):
    unusual = UnusualCalls(record if isinstance(record, dict) else None)

    def call():
        unusual.begin({"num_inference_steps": 50}, Tokenizing(), longer=False)
        unusual.observe("unet.forward", {"timestep": torch.tensor(5.0)})
        unusual.tell_cuts()

    assert said(call) == []


class Pipeline:
    """What draws nothing."""

    def __call__(self, prompt: str, num_inference_steps: int = 50) -> str:
        return f"{prompt} {num_inference_steps}"


def test_a_pipeline_tells_of_its_own_number_of_steps_too_and_stays_what_it_is():
    pipeline = Pipeline()
    manifest = Manifest.model_construct(**{**MANIFEST, "calibration": {"steps": 2}})
    tell_unusual_calls(pipeline, manifest)

    (text,) = said(lambda: pipeline("fox"))
    assert "calibrated on 2 steps, and 50 are run" in text
    assert said(lambda: pipeline("fox", 2)) == []
    assert pipeline("fox", num_inference_steps=3) == "fox 3"
    assert type(pipeline).__name__ == "Pipeline"
    assert list(inspect.signature(pipeline.__call__).parameters) == [
        "prompt",
        "num_inference_steps",
    ]
