"""What a bundle keeps of the call: all of its plain values, nothing of where an image lay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from qdx.exporter.capture.recorded_call import record_call, restore_call
from qdx.exporter.errors import InvalidBundle, UsageError


def test_every_plain_value_is_kept() -> None:
    call = {"a": None, "b": {"c": [1, 2.5, None, "x"]}, "d": True, "prompt": ["one", "two"]}

    assert restore_call(record_call(call)) == call


@pytest.mark.parametrize(
    "value",
    [(1, 2), float("nan"), {1: 2}, 2**60, b"x", {3}, {"tensor_shape": [1], "dtype": "float32"}],
    ids=[
        "tuple",
        "NaN",
        "number as key",
        "large number",
        "bytes",
        "set",
        "what looks like a record",
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(UsageError, match="`eta`"):
        record_call({"eta": value})


def test_of_pictures_only_the_size_and_the_mode_are_kept() -> None:
    call = {"image": Image.new("RGB", (6, 4), "red"), "mask_image": [[Image.new("L", (2, 3))]]}

    recorded = record_call(call)
    restored = restore_call(recorded)

    assert recorded == {
        "image": {"size_pixels": [6, 4]},
        "mask_image": [[{"size_pixels": [2, 3], "mode": "L"}]],
    }
    assert restored["image"].size == (6, 4)
    assert restored["mask_image"][0][0].size == (2, 3)
    assert restored["mask_image"][0][0].mode == "L"
    again = restore_call(recorded)["image"]
    assert np.array_equal(np.asarray(restored["image"]), np.asarray(again))


def test_of_tensors_only_the_shape_and_the_dtype_are_kept() -> None:
    call = {
        "prompt_embeds": torch.zeros(1, 3, 4, dtype=torch.float16),
        "negative_prompt_embeds": torch.zeros(1, 3, 4, dtype=torch.float16),
        "prompt_attention_mask": torch.zeros(1, 3, dtype=torch.int64),
        "sizes": [np.zeros((2, 2), np.float32)],
    }

    recorded = record_call(call)
    restored = restore_call(recorded)

    assert recorded["prompt_embeds"] == {"tensor_shape": [1, 3, 4], "dtype": "float16"}
    assert recorded["sizes"] == [{"array_shape": [2, 2], "dtype": "float32"}]
    assert restored["prompt_embeds"].dtype == torch.float16
    assert not torch.equal(restored["prompt_embeds"], restored["negative_prompt_embeds"])
    assert restored["prompt_attention_mask"].min() == 1
    assert isinstance(restored["sizes"][0], np.ndarray)


@pytest.mark.parametrize("value", ["x.png", [["x.png"]], {"file": "x"}], ids=repr)
def test_a_path_is_no_picture(value: object) -> None:
    with pytest.raises(UsageError, match="`image`"):
        record_call({"image": value})


@pytest.mark.parametrize(
    "call",
    [{"num_frames": 9}, {"num_images_per_prompt": 2}, {"frames": 9}, {"render_text_images": True},
     {"prev_segment_conditioning_frames": 1}, {"num_prompts_per_image": 1}, {"image_guidance_scale": 1.5}],
    ids=str,
)  # fmt: skip
def test_counts_and_flags_that_are_called_like_pictures_are_kept(call: dict[str, object]) -> None:
    assert restore_call(record_call(call)) == call


@pytest.mark.parametrize(
    "value",
    [
        "/etc/hostname",
        ["x.png"],
        {"file": "x.safetensors"},
        {"size_pixels": [10**9, 10**9]},
        {"size_pixels": [0, 1]},
        {"size_pixels": [4, 4], "path": "x"},
        {"size_pixels": [4, 4], "mode": "RGBX"},
        {"tensor_shape": [2**20, 2**20], "dtype": "float32"},
        {"tensor_shape": [2], "dtype": "object"},
    ],
    ids=repr,
)
def test_a_bundle_cannot_name_a_file(value: object) -> None:
    with pytest.raises(InvalidBundle, match="`image`"):
        restore_call({"image": value})
