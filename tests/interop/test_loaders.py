"""Other people's loaders read our bundles, unchanged, and draw the same picture.

They want older libraries than qdx does, so this runs in an environment without qdx, on what
`prepare.py` left: bundles, and the picture that qdx draws with each. `make interop` does both.

Every picture is drawn from the same seed, and compared with ours and with the one that PyTorch
draws from the original weights in the loaders' own environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

FOLDER = os.environ.get("QDX_INTEROP_FOLDER")
if FOLDER is None:
    pytest.skip("needs the bundles that `make interop` exports", allow_module_level=True)

from tests.interop.prepare import CASES, draw  # noqa: E402

pytestmark = pytest.mark.interop

# The runtimes are the same and so are the files; what is left are thread counts and rounding.
PSNR_DB_MIN = 40.0
# OpenVINO GenAI has pipelines and schedulers of its own, in C++.
GENAI_PSNR_DB_MIN = 30.0

# qdx pins the same hint; the default on some processors is bfloat16.
FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}

PREPARED = [case for case in CASES if Path(FOLDER, case).is_dir()]

CLASSES = {
    "sd": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "sd-img2img": "StableDiffusionImg2ImgPipeline",
    "sd-static": "StableDiffusionPipeline",
    "shapes": "StableDiffusionPipeline",
}


def call_of(case):
    return json.loads(Path(FOLDER, case, "call.json").read_text())


def psnr_db(one, other):
    """Peak signal-to-noise ratio of two pictures of values from 0 to 1, in decibels."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else -10 * np.log10(error)


@pytest.fixture(scope="session")
def from_pytorch():
    """The picture that PyTorch draws from a case's original weights, drawn once."""
    import diffusers

    drawn = {}

    def picture(case):
        if case not in drawn:
            folder = Path(FOLDER, case)
            loaded = getattr(diffusers, CLASSES[case]).from_pretrained(folder / "source")
            drawn[case] = draw(loaded, call_of(case), folder)
        return drawn[case]

    return picture


@pytest.fixture
def compare(from_pytorch, record_property):
    """Asserts that a picture is ours and PyTorch's."""

    def check(picture, case, target, *, at_least_db):
        ours = np.load(Path(FOLDER, case, f"{target}.npy"))
        found = {"qdx": psnr_db(picture, ours), "PyTorch": psnr_db(picture, from_pytorch(case))}
        for name, value in found.items():
            record_property(f"psnr_db {name}", round(value, 1))
        assert ours.std() > 0.01, "a picture of one colour would prove nothing"
        assert min(found.values()) >= at_least_db, found

    return check


@pytest.mark.parametrize("case", PREPARED)
def test_optimum_onnx(case, compare):
    from optimum.onnxruntime import ORTDiffusionPipeline

    folder = Path(FOLDER, case)
    pipeline = ORTDiffusionPipeline.from_pretrained(folder / "onnxruntime")

    assert type(pipeline).__name__ == f"ORT{CLASSES[case]}"
    picture = draw(pipeline, call_of(case), folder)
    compare(picture, case, "onnxruntime", at_least_db=PSNR_DB_MIN)


@pytest.mark.parametrize("case", PREPARED)
def test_optimum_intel(case, compare):
    from optimum.intel import OVDiffusionPipeline

    folder = Path(FOLDER, case)
    pipeline = OVDiffusionPipeline.from_pretrained(
        folder / "openvino",
        device="CPU",
        ov_config=FULL_PRECISION,
        # By default it opens every size, which a bundle of one size refuses.
        dynamic_shapes=CASES[case].shapes == "dynamic",
    )

    assert type(pipeline).__name__ == f"OV{CLASSES[case]}"
    picture = draw(pipeline, call_of(case), folder)
    compare(picture, case, "openvino", at_least_db=PSNR_DB_MIN)


def torch_noise():
    """A generator for GenAI whose numbers are PyTorch's."""
    import openvino
    import openvino_genai
    import torch

    from tests.interop.prepare import SEED

    class TorchNoise(openvino_genai.Generator):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator("cpu").manual_seed(SEED)

        def next(self):
            return torch.randn(1, generator=self.generator).item()

        def randn_tensor(self, shape):
            drawn = torch.randn(tuple(shape), generator=self.generator)
            return openvino.Tensor(drawn.numpy().copy())

    return TorchNoise()


def draw_with_genai(pipeline, call):
    """The picture that GenAI draws, from 0 to 1; it hands out 8 bits."""
    call = dict(call)
    result = pipeline.generate(call.pop("prompt"), **call, generator=torch_noise())
    return result.data[0].astype(np.float32) / 255


@pytest.mark.parametrize("case", [c for c in ("sd", "sdxl", "sd3", "shapes") if c in PREPARED])
def test_openvino_genai(case, compare):
    import openvino_genai

    bundle = Path(FOLDER, case, "openvino")
    pipeline = openvino_genai.Text2ImagePipeline(bundle, "CPU", **FULL_PRECISION)

    picture = draw_with_genai(pipeline, call_of(case))
    compare(picture, case, "openvino", at_least_db=GENAI_PSNR_DB_MIN)


@pytest.mark.skipif("flux" not in PREPARED, reason="not prepared")
def test_openvino_genai_flux(tmp_path, record_property):
    """With the fixed shift of FLUX.1-schnell.

    Where the shift depends on the picture's size, as in FLUX.1-dev, GenAI 2026.4 steps along other
    noise levels than diffusers: they do not change with `max_shift`.
    """
    import diffusers
    import openvino_genai

    folder = Path(FOLDER, "flux")
    original = diffusers.FluxPipeline.from_pretrained(folder / "source")
    original.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    original.scheduler.save_config(tmp_path)
    pipeline = openvino_genai.Text2ImagePipeline(folder / "openvino", "CPU", **FULL_PRECISION)
    scheduler = openvino_genai.Scheduler.from_config(tmp_path / "scheduler_config.json")
    pipeline.set_scheduler(scheduler)

    call = call_of("flux")
    found = psnr_db(draw_with_genai(pipeline, call), draw(original, call, folder))
    record_property("psnr_db PyTorch", round(found, 1))
    assert found >= GENAI_PSNR_DB_MIN
