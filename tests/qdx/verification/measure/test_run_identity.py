from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from qdx.exporter.capture.noise import noise_image
from qdx.exporter.capture.variants import CallSignature
from qdx.verification.measure.run_identity import RunIdentity
from qdx.verification.measure.samples import RunSpec

IDENTITY = RunIdentity(
    source={"unet/model.safetensors": "ab"},
    pipeline_class="StableDiffusionPipeline",
    graphs={"unet.forward": CallSignature(frozenset({"sample", "timestep"}))},
    left_out=(),
    keep=100,
)
CALL = {"prompt": "a fox", "num_inference_steps": 3, "image": noise_image(8, 8)}
SPEC = RunSpec(CALL, 0)


def changed_picture():
    picture = noise_image(8, 8)
    picture.putpixel((0, 0), (1, 2, 3))
    return picture


def test_the_same_run_has_the_same_key():
    again = replace(
        IDENTITY, graphs={"unet.forward": CallSignature(frozenset({"timestep", "sample"}))}
    )

    assert IDENTITY.key(SPEC) == again.key(RunSpec({**CALL, "image": noise_image(8, 8)}, 0))


@pytest.mark.parametrize(
    "identity",
    [
        replace(IDENTITY, source={"unet/model.safetensors": "ac"}),
        replace(IDENTITY, pipeline_class="StableDiffusionXLPipeline"),
        replace(IDENTITY, graphs={"unet.forward": CallSignature(frozenset({"sample"}))}),
        replace(IDENTITY, left_out=("vae",)),
        replace(IDENTITY, keep=99),
    ],
)
def test_another_reference_has_another_key(identity):
    assert identity.key(SPEC) != IDENTITY.key(SPEC)


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(CALL, 1),
        RunSpec({**CALL, "prompt": "an owl"}, 0),
        RunSpec({**CALL, "num_inference_steps": 4}, 0),
        RunSpec({**CALL, "image": changed_picture()}, 0),
        RunSpec({**CALL, "image": [noise_image(8, 8)]}, 0),
        RunSpec({**CALL, "image": Image.new("L", (8, 8))}, 0),
    ],
)
def test_another_run_has_another_key(spec):
    assert IDENTITY.key(spec) != IDENTITY.key(SPEC)


def test_other_threads_have_another_key():
    key, threads = IDENTITY.key(SPEC), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert IDENTITY.key(SPEC) != key
    finally:
        torch.set_num_threads(threads)


def test_another_version_has_another_key(monkeypatch):
    key = IDENTITY.key(SPEC)
    monkeypatch.setattr("qdx.cache.facts.version", lambda _: "0")

    assert IDENTITY.key(SPEC) != key


def test_a_call_with_objects_has_no_key():
    assert IDENTITY.key(RunSpec({**CALL, "latents": object()}, 0)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2), torch.ones(2)),
        (torch.zeros(2), torch.zeros(2).numpy()),
        ([[noise_image(8, 8)]], [[changed_picture()]]),
    ],
    ids=["values", "kind", "nested"],
)
def test_tensors_and_nested_pictures_count_with_what_they_hold(one, other):
    keys = [IDENTITY.key(RunSpec({**CALL, "latents": value}, 0)) for value in (one, other)]

    assert None not in keys
    assert keys[0] != keys[1]
