"""Damaged, lying, quantized and pickled weights are refused; the message names file and tensor."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.adversity import SMALL_CALL, export_of_changed

NAME = "diffusion_pytorch_model.safetensors"
KERNEL = "conv_in.weight"


def changed(change):
    def apply(model):
        path = model / "unet" / NAME
        tensors = {name: tensor.copy() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return apply


def header(change):
    def apply(model):
        path = model / "unet" / NAME
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        path.write_bytes(change(length, data[8 : 8 + length], data[8 + length :]))

    return apply


def sharded(shard):
    def apply(model):
        (model / "unet" / NAME).rename(model / "unet" / "part.safetensors")
        (model / "unet" / f"{NAME}.index.json").write_text(
            json.dumps({"weight_map": {KERNEL: shard}})
        )

    return apply


def as_pickle(model):
    (model / "unet" / NAME).rename(model / "unet" / "diffusion_pytorch_model.bin")


def as_link(model):
    (model / "unet" / NAME).rename(model / "weights")
    (model / "unet" / NAME).symlink_to("../weights")


CASES = {
    "truncated": (lambda model: os.truncate(model / "unet" / NAME, 40_000), NAME),
    "four bytes": (lambda model: os.truncate(model / "unet" / NAME, 4), NAME),
    "missing": (lambda model: (model / "unet" / NAME).unlink(), "unet"),
    "pickle": (as_pickle, "hint: pickle"),
    "a link": (as_link, NAME),
    "a hard link to elsewhere": (lambda model: os.link(model / "unet" / NAME, model.parent / "weights"), NAME),
    "another shape": (changed(lambda t: t.update({KERNEL: t[KERNEL][:, :2].copy()})), KERNEL),
    "a tensor missing": (changed(lambda t: t.pop(KERNEL)), KERNEL),
    "integers": (changed(lambda t: t.update({KERNEL: t[KERNEL].astype(np.int8)})), KERNEL),
    "NaN": (changed(lambda t: t[KERNEL].__setitem__((0, 0, 0, 0), np.nan)), KERNEL),
    "infinity": (changed(lambda t: t["conv_out.bias"].__setitem__(0, np.inf)), "conv_out.bias"),
    "too large for float32": (changed(lambda t: t.update({KERNEL: np.full(t[KERNEL].shape, 1e300)})), KERNEL),
    "a header without end": (header(lambda n, text, rest: struct.pack("<Q", n + 10**12) + text + rest), NAME),
    "a header of another shape": (
        header(lambda n, text, rest: struct.pack("<Q", n) + text.replace(b"[8,3,", b"[9,3,", 1) + rest), NAME),
    "a shard outside": (sharded("../part.safetensors"), "index.json"),
    "an absolute shard": (sharded("/etc/passwd"), "index.json"),
    "a missing shard": (sharded("none.safetensors"), "none.safetensors"),
    "a shard with more": (sharded("part.safetensors"), "part.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("damage", CASES)
def test_weights(smallest, tmp_path, damage):
    change, words = CASES[damage]
    done = export_of_changed(smallest, change, tmp_path, *SMALL_CALL)

    assert done.status == 2
    assert words in done.err
