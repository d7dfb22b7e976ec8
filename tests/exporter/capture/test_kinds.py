"""What components do in a pipeline, told from their calls alone."""

from __future__ import annotations

import fnmatch

import pytest
import torch

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.kinds import component_kinds
from qdx.source.pipeline import trace_pipeline
from tests.support.tiny import FAMILIES, build

DENOISERS = ("unet*", "transformer*", "prior", "decoder", "super_res_*")
STEP = {"timestep": ()}


def call(component, given, *answered, method="forward", reads=(), **numbers):
    """A call with tensors of some shapes; those named `ids` are whole numbers."""
    arguments = {
        name: torch.empty(shape, dtype=torch.int64 if name == "ids" else None, device="meta")
        for name, shape in given.items()
    }
    return CallRecord(
        component, method, {**arguments, **numbers}, outputs=answered, reads=frozenset(reads)
    )


TEXT = call("a", {"ids": (1, 77)}, (1, 77, 32))
DENOISE = call("d", {"sample": (2, 4, 8, 8), **STEP}, (2, 4, 8, 8))
DECODE = call("v", {"z": (1, 4, 8, 8)}, (1, 3, 64, 64), method="decode")


def kinds(*records):
    return component_kinds(records)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not FAMILIES[name].heavy])
def test_of_every_family(tmp_path, name):
    source = trace_pipeline(build(name, tmp_path / name), FAMILIES[name].arguments())
    found = source.captured.kinds

    assert found.keys() == {record.component for record in source.captured.calls.values()}
    for component, kind in found.items():
        named = any(fnmatch.fnmatch(component, glob) for glob in DENOISERS)
        assert (kind == "denoiser") == named
        assert (kind == "text_encoder") == component.startswith("text_encoder")
        assert (kind == "decoder") == (component == "vae")
        assert (kind == "control") == (component == "controlnet")


def test_names_decide_nothing():
    encode = call("v", {"x": (1, 3, 64, 64)}, (1, 4, 8, 8), method="encode")

    assert kinds(TEXT, encode, DENOISE, DENOISE, DECODE) == {
        "a": "text_encoder", "v": "decoder", "d": "denoiser",
    }  # fmt: skip
    assert kinds(call("i", {"x": (1, 3, 64, 64)}, (1, 32)), DENOISE)["i"] == "encoder"


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ({"sample": (2, 9, 8, 8), **STEP}, (2, 4, 8, 8)),  # of a mask and a masked picture too
        ({"sample": (2, 4, 8, 8), **STEP}, (2, 8, 8, 8)),  # with a learned variance
        ({"tokens": (1, 16, 64), "timestep": (1,)}, (1, 16, 32)),
        ({"embedding": (2, 768), **STEP}, (2, 768)),  # a prior
        ({"video": (1, 36, 2, 4, 4), **STEP}, (1, 16, 2, 4, 4)),
        ({"video": (1, 3, 32, 8, 8), **STEP}, (1, 3, 16, 8, 8)),  # frames before channels
    ],
)
def test_a_denoiser_answers_with_something_like_what_it_was_given(given, answered):
    assert kinds(call("x", given, answered), DECODE)["x"] == "denoiser"


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ({"sample": (2, 4, 8, 8)}, (2, 4, 8, 8)),  # told no timestep
        ({"sample": (2, 4, 8, 8), **STEP}, (2, 4, 16, 16)),  # another size
        ({"tokens": (1, 24, 32), **STEP}, (1, 1, 32)),  # of another number of tokens
        ({"ids": (2, 4), **STEP}, (2, 4)),  # whole numbers
        ({"sample": (2, 4, 8, 8), "flag": (1,)}, ()),  # no answer of tensors
    ],
)
def test_what_does_not_is_none(given, answered):
    assert kinds(call("x", given, *([answered] if answered else [])), DENOISE)["x"] != "denoiser"


def test_several_models_denoise_one_after_the_other():
    prior = call("prior", {"e": (2, 32), **STEP}, (2, 32))
    first = call("d", {"sample": (2, 3, 8, 8), "e": (2, 32), **STEP}, (2, 6, 8, 8))
    between = call("project", {"e": (2, 32)}, (2, 4, 32))
    larger = call("large", {"sample": (1, 6, 64, 64), **STEP}, (1, 3, 64, 64))

    assert kinds(TEXT, prior, prior, between, first, first, larger) == {
        "a": "text_encoder", "prior": "denoiser", "project": "encoder", "d": "denoiser", "large": "denoiser",
    }  # fmt: skip


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("shape", [(2, 16, 4, 4), (2, 16, 8, 8)])
def test_what_a_denoiser_reads_as_it_was_answered_controls_it(steps, shape):
    """The second shape is like the sample's: only who reads it tells."""
    control = call("c", {"sample": (2, 4, 8, 8), **STEP}, shape)
    denoise = call("d", {"sample": (2, 4, 8, 8), **STEP}, (2, 4, 8, 8), reads=["c"])

    assert kinds(*[control, denoise] * steps, DECODE) == {
        "c": "control", "d": "denoiser", "v": "decoder",
    }  # fmt: skip


def test_without_a_denoiser_nothing_is_told():
    assert kinds(TEXT, DECODE) == {}
