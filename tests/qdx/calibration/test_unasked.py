"""What a calibration takes unasked is said, with the way out."""

from __future__ import annotations

import warnings

import pytest

from qdx.calibration.unasked import tell_prompts
from qdx.exporter.calibrate.coverage import calibrated_timesteps
from qdx.exporter.cautions import collected
from qdx.exporter.plan import Calibration
from tests.support.calibrating import calibrated_run, prepared

CALL = {"prompt": "a red circle", "height": 16, "width": 16}
LONG = " ".join(["a red circle left of a blue square"] * 30)


def said(call, prompts, samples=4):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with collected() as found:
            tell_prompts(call, Calibration(samples=samples), prompts)
    return found


def test_a_calibration_on_the_call_s_own_prompt_is_said_with_the_number_that_it_wants():
    (text,) = said(CALL, None)

    assert text.startswith("no --calib: calibrates on the call's own prompt alone, `a red circle`,")
    assert "give --calib FILE (in Python `prompts`) with 4 prompts" in text
    assert "with 1 prompt like" in said(CALL, None, samples=1)[0]
    assert "with 8 prompts" in said({"prompt": ["a", "b"]}, None)[0]


def test_prompts_that_are_not_used_are_said():
    (text,) = said(CALL, ["a"] * 16)

    assert text.startswith("4 of the 16 prompts are used, the first ones")
    assert "`calibration.samples`" in text


@pytest.mark.parametrize(("call", "prompts"), [(CALL, ["a"] * 4), (CALL, ["a"]), ({}, None)])
def test_nothing_is_said_of_what_was_asked(call, prompts):
    assert said(call, prompts) == []


@pytest.fixture(scope="module")
def sd(tiny_sd):
    return prepared(tiny_sd, CALL)


def test_prompts_that_the_text_encoder_does_not_read_whole_are_said_by_a_calibration(sd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with collected() as found:
            ranges = calibrated_run(sd, ("a red circle", LONG))

    (text,) = found
    assert text.startswith(
        "a prompt is cut, and what comes after is not read: `a red circle left of"
    )
    seen = calibrated_timesteps(ranges)["unet.forward"]
    timesteps = ranges.timesteps("unet.forward")
    assert seen == {
        "input": "timestep",
        "highest": max(timesteps),
        "lowest": min(timesteps),
        "count": len(timesteps),
    }
    assert "vae.decode" not in calibrated_timesteps(ranges)
