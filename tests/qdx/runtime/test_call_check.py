"""Counts that a static bundle was not exported with are refused before anything runs, guidance by the batch that comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qdx.exporter.errors import UsageError
from qdx.runtime.call_check import batch_words, check_batch, check_call
from qdx.runtime.methods import WrongShape
from qdx.runtime.sizes import refuse_other_calls


def port(argument: str, *shape: int | str) -> Any:
    return SimpleNamespace(argument=argument, shape=shape, form=None)


def manifest(batch: int | str = 2, *, shapes: str = "static", **call: Any) -> Any:
    """Of a bundle whose denoiser takes some batch, as far as the check reads it."""
    unet = SimpleNamespace(inputs=(port("sample", batch, 4, 8, 8), port("timestep", 1)))
    text = SimpleNamespace(inputs=(port("input_ids", 1, 16),))
    components = {
        "unet": SimpleNamespace(methods={"forward": unet}),
        "text_encoder": SimpleNamespace(methods={"forward": text}),
    }
    call = {"prompt": "a fox", **call}
    return SimpleNamespace(shapes=shapes, call=call, components=components, sizes=None)


TAKEN = [
    (manifest(), {"prompt": "a cat"}),
    (manifest(), {"prompt": "a cat", "guidance_scale": 7.5}),
    (manifest(), {"prompt": ["a cat"]}),
    (manifest(), {"guidance_scale": None}),
    (manifest(4, prompt=["a", "b"]), {"prompt": ["c", "d"]}),
    (manifest(4, num_images_per_prompt=2), {"prompt": "a", "num_images_per_prompt": 2}),
    (manifest(1, guidance_scale=1), {"prompt": "a", "guidance_scale": 1}),
    (manifest(1, guidance_scale=1), {"prompt": "a", "guidance_scale": 7.5}),  # two calls one after the other, perhaps
    (manifest(8, guidance_scale=1), {"prompt": "a", "guidance_scale": 1}),  # frames
    (manifest(3), {"prompt_embeds": "x"}),
    (manifest(4, prompt=None, prompt_embeds="of two"), {"prompt": ["a", "b"]}),
    (manifest(2, prompt=["a", "b"]), {"prompt": ["c", "d"], "guidance_scale": 1}),
    (manifest(2, guidance_scale=3.5), {"prompt": "a", "guidance_scale": 1}),  # not in the batch, or always in it
    (manifest(2), {"prompt": "a", "guidance_scale": 0.5}),
    (manifest(2, prompt=["a", "b"], guidance_scale=1), {"prompt": "c", "guidance_scale": 7.5}),  # no encoder in the bundle
    (manifest(6, num_videos_per_prompt=3), {"prompt": ["a", "b", "c"]}),
    (manifest(6, num_waveforms_per_prompt=3), {"prompt": "a", "num_waveforms_per_prompt": 3}),
    (manifest(2, num_images_per_prompt=None), {"prompt": ["a", "b"]}),
    (manifest(2), {"prompt": ("a", "b")}),
    (manifest("b"), {"prompt": ["a", "b"], "guidance_scale": 1}),
    (manifest(shapes="dynamic"), {"prompt": ["a", "b"], "guidance_scale": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("bundle", "call"), TAKEN)
def test_what_a_bundle_may_generate_is_taken(bundle, call):
    check_call(bundle, call)


REFUSED = [
    ({"prompt": ["a", "b"]}, "generates 1 image at a time, 2 images were requested (2 prompts with 1 image each)",
     "give 1 prompt with 1 image each"),
    ({"prompt": "a", "num_images_per_prompt": 3}, "3 images were requested (1 prompt with 3 images each)", "--shapes dynamic"),
    ({"prompt": "a", "num_videos_per_prompt": 2}, "2 videos were requested (1 prompt with 2 videos each)", "--call like this one"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words", "hint"), REFUSED, ids=[str(one[0]) for one in REFUSED])
def test_what_it_does_not_is_refused_with_the_way_out(call, words, hint):
    with pytest.raises(UsageError) as raised:
        check_batch(manifest(), call)

    assert words in raised.value.message
    assert hint in raised.value.hint


BATCHES = [
    ((1, 2), {"prompt": "a", "guidance_scale": 1.0}, "exported with guidance (a batch of 2)", "above 1"),
    ((1, 3), {"prompt": "a", "guidance_scale": 0}, "guidance 0 computes without", """--call '{"guidance_scale": 0}'"""),
    ((2, 1), {"prompt": "a", "guidance_scale": 0.5}, "guidance 0.5 computes a batch of 2", "give --guidance 1 "),
    ((2, 1), {"prompt": "a", "guidance_scale": 7.5}, "without guidance (a batch of 1), and guidance 7.5 computes a batch of 2",
     "give --guidance 1 "),
    ((4, 2), {"prompt": ["a", "b"]}, "a batch of 2, and this call one of 4 (2 prompts with 1 image each)", "give 1 prompt"),
    ((2, 1), {"prompt": ["a", "b"], "guidance_scale": 7.5}, "one of 2 (2 prompts with 1 image each)", "give 1 prompt"),
    ((1, 2), {"prompt_embeds": "x", "guidance_scale": 1}, "a batch of 2, and this call one of 1", "give 1 prompt"),
    ((5, 2), {"prompt": "a", "guidance_scale": 7.5}, "a batch of 2, and this call one of 5", "the arguments of the export"),
]  # fmt: skip


@pytest.mark.parametrize(("batches", "call", "words", "hint"), BATCHES)
def test_a_batch_that_an_artifact_does_not_take_is_explained(batches, call, words, hint):
    error = batch_words(manifest(), *batches, call)

    assert error is not None
    assert words in error.message
    assert hint in error.hint


class Pipeline:
    """Its artifact takes a batch of one, and its own guidance asks for two."""

    def __call__(self, prompt: str, guidance_scale: float = 7.5) -> None:
        raise WrongShape("`unet.forward`: [2, 4]", hint="again", is_size=False, batches=(2, 1))


def test_guidance_of_the_pipelines_own_is_told_when_the_first_step_begins():
    pipeline = Pipeline()
    refuse_other_calls(pipeline, manifest(1, guidance_scale=1))  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=r"guidance 7.5 computes a batch of 2") as raised:
        pipeline("a cat")

    assert """export with guidance: --call '{"guidance_scale": 7.5}'""" in raised.value.hint
