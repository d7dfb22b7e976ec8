"""Pipeline folders as they are brought: variants, options that are lists, configurations of other names, absent parts."""

from __future__ import annotations

import json
import shutil

import pytest

from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.errors import InvalidModel
from tests.support.tiny import build

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def ddpm(tmp_path):
    return build("ddpm", tmp_path / "ddpm")


def rename(folder, *variants):
    """Gives a denoiser's weights the marks of variants."""
    file = folder / "unet" / WEIGHTS
    for variant in variants:
        shutil.copy(file, file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    file.unlink()


def edit_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_the_variant_that_is_chosen_is_opened(ddpm):
    rename(ddpm, "fp16", "bf16")

    component = read_pipeline_folder(ddpm, variant="fp16").components["unet"]

    assert open_weights(component).files[0].name == "diffusion_pytorch_model.fp16.safetensors"


def test_a_variant_that_no_component_has_is_refused_with_those_that_are_there(ddpm):
    rename(ddpm, "fp16", "bf16")

    with pytest.raises(InvalidModel, match="`fp8`; variants there: bf16, fp16"):
        read_pipeline_folder(ddpm, variant="fp8")


def test_variants_can_be_chosen_by_component(ddpm):
    rename(ddpm, "fp16", "bf16")

    folder = read_pipeline_folder(ddpm).with_variants({"unet": "bf16"})

    assert folder.components["unet"].variant == "bf16"
    assert folder.components["scheduler"].variant is None


@pytest.mark.parametrize("value", [[1, 2, 3], ["a", "b", "c"], [], [[0.5, 1.0]]])
def test_a_list_that_names_no_class_is_an_option(ddpm, value):
    edit_index(ddpm, layers=value)

    assert read_pipeline_folder(ddpm).options["layers"] == value


def test_a_list_under_the_name_of_a_folder_is_a_component(ddpm):
    edit_index(ddpm, unet=["diffusers", "UNet2DModel", "x"])

    with pytest.raises(InvalidModel, match=r"component `unet` is .* expected \[library, class\]"):
        read_pipeline_folder(ddpm)


def test_a_configuration_under_the_name_of_its_class_is_read(ddpm):
    guider = ddpm / "guider"
    guider.mkdir()
    (guider / "guider_config.json").write_text('{"guidance_scale": 5.0}')
    edit_index(ddpm, guider=["diffusers", "ClassifierFreeGuidance"])

    assert read_pipeline_folder(ddpm).components["guider"].config == {"guidance_scale": 5.0}


def test_a_part_that_artifacts_ship_without_may_be_missing(ddpm):
    edit_index(ddpm, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])

    assert "safety_checker" in read_pipeline_folder(ddpm).components


def test_what_a_pipeline_makes_itself_needs_no_folder(ddpm):
    entry = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    shutil.rmtree(ddpm / "scheduler")
    edit_index(ddpm, _class_name="LongCatAudioDiTPipeline", scheduler=entry)

    folder = read_pipeline_folder(ddpm)

    assert "scheduler" not in folder.components
    assert folder.options["scheduler"] == entry


def test_what_a_pipeline_does_not_make_itself_needs_its_folder(ddpm):
    shutil.rmtree(ddpm / "scheduler")

    with pytest.raises(InvalidModel, match=r"component `scheduler`: folder .* is missing"):
        read_pipeline_folder(ddpm)
