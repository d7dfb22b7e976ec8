"""Other people's loaders read our bundles, unchanged, and draw the same picture.

They want older libraries than qdx does, so `make interop` runs this in an environment that has no
qdx: it first exports bundles, draws a picture with each, and leaves what `qdx run --json` said.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = os.environ.get("QDX_INTEROP_BUNDLES")
if FOLDER is None:
    pytest.skip("needs the bundles that `make interop` exports", allow_module_level=True)

# The runtimes are the same and so are the files; what is left are thread counts and rounding.
PSNR_DB_MIN = 40.0


def psnr_db(one, other):
    """Peak signal-to-noise ratio of two pictures of values from 0 to 255, in decibels."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def ours(target):
    """The bundle, the call that qdx made with it, and the picture that came out."""
    said = json.loads(Path(FOLDER, f"interop-{target}.json").read_text())
    (picture,) = said["images"]
    return Path(FOLDER, f"interop-{target}"), said, np.asarray(Image.open(picture).convert("RGB"))


def load_onnxruntime(bundle):
    from optimum.onnxruntime import ORTDiffusionPipeline

    return ORTDiffusionPipeline.from_pretrained(bundle)


def load_openvino(bundle):
    from optimum.intel import OVDiffusionPipeline

    # qdx pins the same hint; the default on some processors is bfloat16.
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    return OVDiffusionPipeline.from_pretrained(bundle, device="CPU", ov_config=config)


@pytest.mark.parametrize(
    ("target", "load"), [("onnxruntime", load_onnxruntime), ("openvino", load_openvino)]
)
def test_optimum_draws_our_picture(target, load):
    bundle, said, picture = ours(target)
    generator = torch.Generator("cpu").manual_seed(said["seed"])
    result = load(bundle)(**said["call"], generator=generator)

    assert psnr_db(np.asarray(result.images[0].convert("RGB")), picture) >= PSNR_DB_MIN
