"""Arguments that a call lacks: left out where the pipeline runs without, filled in and said where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.capture.stand_ins import run_with_stand_ins
from qdx.exporter.errors import UsageError
from tests.support.tiny import FAMILIES, build


def _skeleton(name: str, folder: Path) -> Skeleton:
    return build_skeleton(read_pipeline_folder(build(name, folder / name)))


def test_an_optional_picture_is_left_out(tmp_path: Path) -> None:
    folder = build("flux", tmp_path / "flux")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"FluxPipeline"', '"FluxKontextPipeline"'))
    given = {**FAMILIES["flux"].arguments(), "max_area": 64 * 64}

    call, records, notes = run_with_stand_ins(build_skeleton(read_pipeline_folder(folder)), given)

    assert call == given
    assert notes == ()
    assert {(one.component, one.method) for one in records if one.component == "vae"} == {
        ("vae", "decode")
    }


def test_a_prompt_and_a_picture_that_a_pipeline_cannot_do_without_are_filled_in(
    tmp_path: Path,
) -> None:
    call, _, notes = run_with_stand_ins(_skeleton("sd-img2img", tmp_path), {})

    assert call["prompt"] == "a photograph"
    assert call["image"].size == (64, 64)
    assert set(call) == {"prompt", "image"}
    assert '`prompt` was not given: "a photograph" stands in' in notes
    assert "`image` was not given: noise of 64x64 stands in" in notes


def test_a_mask_is_as_large_as_the_picture_that_was_given(tmp_path: Path) -> None:
    skeleton = _skeleton("sd-inpaint", tmp_path)
    given, _, _ = run_with_stand_ins(skeleton, {"prompt": "x", "height": 64, "width": 96})

    assert given["image"].size == given["mask_image"].size == (96, 64)
    assert set(given) == {"prompt", "height", "width", "image", "mask_image"}


def test_an_explicit_none_is_kept(tmp_path: Path) -> None:
    skeleton = _skeleton("sd-img2img", tmp_path)

    with pytest.raises(UsageError):
        run_with_stand_ins(skeleton, {"prompt": "x", "image": None})


def test_what_the_pipeline_says_of_other_faults_is_said(tmp_path: Path) -> None:
    skeleton = _skeleton("sd", tmp_path)

    with pytest.raises(UsageError, match="divisible by 8"):
        run_with_stand_ins(skeleton, {"prompt": "x", "height": 65, "width": 64})


def test_a_path_that_was_not_opened_is_no_picture(tmp_path: Path) -> None:
    skeleton = _skeleton("sd-img2img", tmp_path)

    with pytest.raises(UsageError, match="is the text `x"):
        complete_call(skeleton.pipeline, {"prompt": "x", "image": "x.png"})


@pytest.mark.parametrize(
    ("strength", "steps"), [(0.3, 7), (0.4, 5), (0.05, 40), (0.5, 4), (1.0, 2)]
)
def test_at_least_two_steps_denoise_whatever_the_strength(
    tmp_path: Path, strength: float, steps: int
) -> None:
    skeleton = _skeleton("sd-img2img", tmp_path)

    assert complete_call(skeleton.pipeline, {"strength": strength})["num_inference_steps"] == steps


@pytest.mark.parametrize("name", ["sd-img2img", "sd-inpaint"])
def test_light_retouching_runs_dry_without_a_number_of_steps(tmp_path: Path, name: str) -> None:
    _, records, _ = run_with_stand_ins(_skeleton(name, tmp_path), {"prompt": "x", "strength": 0.3})

    assert len([record for record in records if record.component == "unet"]) == 2
