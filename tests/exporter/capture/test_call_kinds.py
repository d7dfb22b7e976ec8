"""Arguments whose kind cannot be right are refused by name; what a pipeline may take is left to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from qdx.exporter.capture.call_kinds import check_kinds, unknown_hint
from qdx.exporter.errors import UsageError

TAKEN = [
    {"prompt": "64", "negative_prompt": "7", "output_type": "pil", "return_dict": False},
    {"num_inference_steps": 4, "height": 64, "width": 64, "guidance_scale": 7, "eta": 0},
    {"num_inference_steps": 4.0, "num_images_per_prompt": True},
    {"num_inference_steps": 0, "timesteps": [3, 2, 1]},
    {"num_inference_steps": None, "sigmas": [1.0, 0.5], "height": None},
    {"num_hidden_layers_to_skip": 0, "clip_skip": 0, "strength": 0.5, "guidance_scale": -1.5},
    {"height": [64, 128], "num_inference_steps": {"a": 1}, "controlnet_conditioning_scale": [1.0, 0.5]},
    {"strength": "s.safetensors", "num_frames": {"file": "s.safetensors"}},
    {"image": "a.png", "latents": "noise.safetensors", "class_labels": "3", "generator": "x"},
]  # fmt: skip


@pytest.mark.parametrize("call", TAKEN, ids=str)
def test_what_may_be_right_is_taken(call):
    check_kinds(call)


REFUSED = [
    ("height", -64, "`height` is -64, expected a whole number of at least 1"),
    ("width", 0, "`width` is 0, expected a whole number of at least 1"),
    ("height", 64.5, "`height` is 64.5, expected a whole number"),
    ("height", "64", "`height` is the text `64`, expected a whole number"),
    ("num_inference_steps", 0, "`num_inference_steps` is 0, expected a whole number of at least 1"),
    ("num_inference_steps", False, "`num_inference_steps` is false, expected a whole number"),
    ("num_inference_steps", "4", "`num_inference_steps` is the text `4`, expected a whole number"),
    ("num_images_per_prompt", 0, "`num_images_per_prompt` is 0, expected a whole number of at least 1"),
    ("num_things", -1, "`num_things` is -1, expected a whole number of at least 0"),
    ("num_frames", float("nan"), "`num_frames` is nan, expected a whole number"),
    ("guidance_scale", "7", "`guidance_scale` is the text `7`, expected a number"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_what_no_pipeline_takes_is_refused_by_name(name, value, words):
    with pytest.raises(UsageError) as raised:
        check_kinds({name: value})

    assert words in raised.value.message
    assert name in raised.value.hint


def test_a_number_in_quotation_marks_comes_with_what_to_write():
    with pytest.raises(UsageError) as raised:
        check_kinds({"guidance_scale": "7.5"})

    assert raised.value.hint == 'write the number without quotation marks: "guidance_scale": 7.5'


KINDS = {
    "weight": float | None,
    "layers": int | None,
    "mode": str | int,
    "loose": Any,
    "watch": Callable[[int], None],
}
PARAMETERS = {
    name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    for name, kind in KINDS.items()
}


@pytest.mark.parametrize(("name", "kind"), [("weight", "a number"), ("layers", "a whole number")])
def test_annotations_tell_of_names_that_are_not_known(name, kind):
    check_kinds({name: "3"})
    with pytest.raises(UsageError, match=f"`{name}` is the text `3`, expected {kind}"):
        check_kinds({name: "3"}, PARAMETERS)


def test_what_annotations_leave_open_is_taken():
    check_kinds(
        {"mode": "b", "loose": "b", "watch": "b", "unknown": "c", "weight": [1, 2], "layers": None},
        PARAMETERS,
    )


@pytest.mark.parametrize(
    ("name", "near"), [("promt", "prompt"), ("steps", "num_inference_steps"), ("xyz", None)]
)
def test_an_argument_that_a_pipeline_lacks_comes_with_what_it_may_have_meant(name, near):
    hint = unknown_hint(name, ["prompt", "num_inference_steps"])

    assert hint.lower().endswith("it takes: prompt, num_inference_steps")
    assert hint.startswith(f"did you mean `{near}`?" if near else "it takes: ")
