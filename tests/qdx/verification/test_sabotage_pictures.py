"""Wrong pictures, each of which a gate has to stop; and the whole pipeline on a wrong artifact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from qdx.exporter.capture.distributions import map_tensors
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.errors import InternalError, UsageError
from qdx.runtime.generate import generate, products_of
from qdx.verification.measure.picture import attempt, compare_products
from tests.support.judging import pipeline_gates
from tests.support.tiny.families import picture

PICTURES = np.stack(
    [np.asarray(picture(f"image-64x48-{n}.png"), dtype=np.float64) / 255 for n in (1, 2)]
)


def verdicts(reference, artifact, error=""):
    return {
        gate.name: gate.ok for gate in pipeline_gates(compare_products(reference, artifact, error))
    }


def change_one(index, value):
    def change(pictures):
        spoiled = pictures.copy()
        spoiled[index] = value
        return spoiled

    return change


WRONG = {
    "black": np.zeros_like,
    "white": np.ones_like,
    "grey": lambda p: np.full_like(p, 0.5),
    "all NaN": lambda p: np.full_like(p, np.nan),
    "one NaN": change_one((1, 5, 5, 1), np.nan),
    "one infinity": change_one((1, 5, 5, 1), np.inf),
    "second picture black": change_one(1, 0.0),
    "mean colour": lambda p: np.broadcast_to(p.mean((1, 2), keepdims=True), p.shape).copy(),
    "upside down": lambda p: p[:, ::-1].copy(),
    "mirrored": lambda p: p[:, :, ::-1].copy(),
    "transposed": lambda p: p.transpose(0, 2, 1, 3).copy(),
    "blue for red": lambda p: p[..., ::-1].copy(),
    "negative": lambda p: 1 - p,
    "shifted by one pixel": lambda p: np.roll(p, 1, 2),
    "pictures swapped": lambda p: p[::-1].copy(),
    "first picture twice": lambda p: p[[0, 0]],
    "one picture lost": lambda p: p[:1],
    "other size": lambda p: p[:, :32],
    "grey scale": lambda p: p.mean(-1, keepdims=True),
    "not denormalized": lambda p: p * 2 - 1,
    "in bytes": lambda p: p * 255,
    "brighter by 3 %": lambda p: p * 1.03,
    "range cut": lambda p: p.clip(0.2, 0.8),
    "16 colours": lambda p: (p * 15).round() / 15,
    "noise at 38 dB": lambda p: (
        p + 10 ** (-38 / 20) * np.random.default_rng(0).normal(size=p.shape)
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_picture_is_detected(name):
    assert False in verdicts({"images": PICTURES}, {"images": WRONG[name](PICTURES)}).values()


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p,
        lambda p: (p * 255).round() / 255,
        lambda p: p.astype(np.float16).astype(np.float64),
        lambda p: p + 10 ** (-45 / 20) * np.random.default_rng(0).normal(size=p.shape),
    ],
    ids=["exact", "8 bits", "float16", "noise at 45 dB"],
)
def test_a_right_picture_passes(change):
    assert verdicts({"images": PICTURES}, {"images": change(PICTURES)}) == {
        "pipeline.psnr_db": True,
        "pipeline.ssim": True,
    }


def test_no_picture_fails_both_gates():
    assert verdicts({"images": PICTURES}, {}, "it broke") == {
        "pipeline.psnr_db": False,
        "pipeline.ssim": False,
    }


def test_no_reference_fails_both_gates():
    assert verdicts({}, {"images": PICTURES}) == {"pipeline.psnr_db": False, "pipeline.ssim": False}


def test_frames_are_compared_as_pictures():
    frames = PICTURES[np.newaxis]
    late = frames[:, [0, 0]]

    assert set(verdicts({"frames": frames}, {"frames": frames}).values()) == {True}
    assert False in verdicts({"frames": frames}, {"frames": late}).values()


def test_sound_is_compared_without_similarity():
    sound = np.sin(np.linspace(0, 50, 2000)).reshape(1, 2, 1000)

    assert verdicts({"audios": sound}, {"audios": sound}) == {"pipeline.psnr_db": True}
    assert verdicts({"audios": sound}, {"audios": np.zeros_like(sound)}) == {
        "pipeline.psnr_db": False
    }


def test_every_output_counts():
    reference = {"frames": PICTURES[np.newaxis], "audio": np.ones((1, 2, 10))}
    quiet = {**reference, "audio": np.zeros((1, 2, 10))}

    assert verdicts(reference, quiet)["pipeline.psnr_db"] is False
    assert verdicts(reference, {"frames": reference["frames"]})["pipeline.psnr_db"] is False


@pytest.mark.parametrize(
    ("output", "field"),
    [
        ({"images": PICTURES, "nsfw_content_detected": None}, "images"),
        ({"images": torch.from_numpy(PICTURES)}, "images"),
        (
            {"images": [Image.fromarray((p * 255).round().astype(np.uint8)) for p in PICTURES]},
            "images",
        ),
        ({"frames": [list(PICTURES)]}, "frames"),
        ((PICTURES, [False]), "images"),
    ],
    ids=["array", "tensor", "PIL", "lists of frames", "tuple"],
)
def test_products_are_arrays_whatever_the_pipeline_returns(output, field):
    found = products_of(output)

    assert list(found) == [field]
    assert found[field].reshape(PICTURES.shape) == pytest.approx(PICTURES, abs=1e-6)


# The whole pipeline with a component that does wrong. -------------------------------------------------


def with_component(reference, where, change):
    """What the pipeline makes when one method's outputs go through `change`."""
    component, _, method = where.partition(".")

    def answer(call):
        output = call.compute()
        return map_tensors(output, change) if call.method == method else output

    with intercept({component: reference.modules[component]}, answer):
        return attempt(reference.pipeline, reference.call, seed=0)


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("unet.forward", torch.zeros_like),
        ("unet.forward", lambda t: torch.full_like(t, torch.nan)),
        ("unet.forward", lambda t: t.flip(0)),
        ("unet.forward", lambda t: t.transpose(-1, -2).contiguous()),
        ("vae.decode", torch.zeros_like),
        ("vae.decode", lambda t: t.flip(1)),
        ("vae.decode", lambda t: t / 0.18215),
        ("text_encoder.forward", lambda t: torch.full_like(t, torch.nan)),
    ],
)
def test_a_wrong_component_shows_in_the_picture(sd, where, change):
    products, error = with_component(sd, where, change)

    assert False in verdicts(sd.products, products, error).values()


def test_the_same_pipeline_passes(sd):
    products, error = with_component(sd, "unet.forward", lambda tensor: tensor)

    assert verdicts(sd.products, products, error) == {
        "pipeline.psnr_db": True,
        "pipeline.ssim": True,
    }


def test_another_seed_fails(ddpm):
    other = generate(ddpm.pipeline, ddpm.call, seed=1)

    assert verdicts(ddpm.products, other)["pipeline.psnr_db"] is False


@pytest.mark.parametrize(
    "error", [RuntimeError("shape"), UsageError("`unet.forward`: another shape")]
)
def test_a_component_that_fails_is_a_failed_gate(sd, error):
    def broken(_tensor):
        raise error

    products, words = with_component(sd, "unet.forward", broken)

    assert set(verdicts(sd.products, products, words).values()) == {False}
    assert "shape" in words


def test_a_defect_of_our_own_is_raised(sd):
    def broken(_tensor):
        raise InternalError("defect")

    with pytest.raises(InternalError):
        with_component(sd, "unet.forward", broken)


def test_interrupting_is_not_a_verdict(sd):
    def broken(_tensor):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_component(sd, "unet.forward", broken)


def test_outputs_keep_their_names(ddpm):
    assert list(ddpm.products) == ["images"]
