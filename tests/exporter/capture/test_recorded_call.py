"""What a bundle keeps of the call: all of its plain values, nothing of where an image lay."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from qdx.exporter.capture.arguments import load_images
from qdx.exporter.capture.recorded_call import record_call, restore_call
from qdx.exporter.errors import InvalidBundle, UsageError


def test_every_plain_value_is_kept() -> None:
    call = {"a": None, "b": {"c": [1, 2.5, None, "x"]}, "d": True, "prompt": ["one", "two"]}

    assert restore_call(record_call(call)) == call


@pytest.mark.parametrize(
    "value",
    [(1, 2), torch.zeros(1), float("nan"), {1: 2}, [Image.new("RGB", (2, 2))], 2**60, b"x", {3}],
    ids=["tuple", "tensor", "NaN", "number as key", "picture", "large number", "bytes", "set"],
)
def test_what_json_cannot_hold_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(UsageError, match="`eta`"):
        record_call({"eta": value})


def test_of_images_only_the_size_is_kept(tmp_path) -> None:
    Image.new("RGB", (6, 4), "red").save(tmp_path / "red.png")
    call = {"image": str(tmp_path / "red.png"), "mask_image": [Image.new("L", (2, 3))]}

    recorded = record_call(load_images(call))
    restored = restore_call(recorded)

    assert recorded == {"image": {"size_pixels": [6, 4]}, "mask_image": [{"size_pixels": [2, 3]}]}
    assert str(tmp_path) not in json.dumps(recorded)
    assert restored["image"].size == (6, 4)
    assert restored["mask_image"][0].size == (2, 3)
    again = restore_call(recorded)["image"]
    assert np.array_equal(np.asarray(restored["image"]), np.asarray(again))


@pytest.mark.parametrize(
    "value",
    [
        "/etc/hostname",
        ["x.png"],
        5,
        {"size_pixels": [10**9, 10**9]},
        {"size_pixels": [0, 1]},
        {"size_pixels": [4, 4], "path": "x"},
    ],
    ids=repr,
)
def test_a_bundle_cannot_name_a_file(value: object) -> None:
    with pytest.raises(InvalidBundle, match="`image`"):
        restore_call({"image": value})


@pytest.mark.parametrize("value", [5, {"size_pixels": [4, 4]}, "missing.png"], ids=repr)
def test_an_image_is_an_image_or_a_path(tmp_path, value: object) -> None:
    with pytest.raises(UsageError, match="`image`"):
        record_call(load_images({"image": value}, base=tmp_path))


def bomb() -> bytes:
    """A PNG whose header promises 40000 x 40000 pixels."""
    head = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk
            + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT")  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"GIF89a", bomb()], ids=["empty", "damaged", "bomb"])
def test_a_file_that_is_no_image_is_wrong_usage(tmp_path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)

    with pytest.raises(UsageError, match="cannot be read as an image"):
        load_images({"image": "x.png"}, base=tmp_path)


def test_the_size_of_an_image_file_is_bounded(tmp_path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(65 * 2**20)

    with pytest.raises(UsageError, match="bytes, expected at most"):
        load_images({"image": "x.png"}, base=tmp_path)
