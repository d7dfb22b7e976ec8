"""What a pipeline's own Python reads beside its components' methods is found, given, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from qdx.exporter.capture.capture import capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.values_read import ValuesRead
from qdx.exporter.errors import TargetRefusal
from tests.support.smallest import build_smallest
from tests.support.tiny import build, load

CALL = {"prompt": "a red fox", "height": 64, "width": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_smallest(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", name="text_model")
def _text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sd", tmp_path_factory.mktemp("text"))


def skeleton_of(folder: Path):
    return build_skeleton(read_pipeline_folder(folder))


def test_a_pipeline_that_reads_no_values_gets_none(model: Path) -> None:
    assert capture(skeleton_of(model), {"num_inference_steps": 1}, shapes="static").values == {}


def test_a_number_that_is_read_is_the_stored_one(model: Path) -> None:
    from diffusers import UNet2DModel

    skeleton = skeleton_of(model)
    unet = skeleton.modules["unet"]
    values = ValuesRead(skeleton)

    found = values.run(lambda: float(unet.conv_in.bias[3]) + float(unet.conv_out.weight.sum()))

    stored = UNet2DModel.from_pretrained(model / "unet")
    assert found == float(stored.conv_in.bias[3]) + float(stored.conv_out.weight.sum())
    assert values.names == {"unet": ("conv_in.bias", "conv_out.weight")}
    values.restore()
    assert isinstance(unet.conv_in.bias, FakeTensor)
    assert isinstance(unet.conv_out.weight, FakeTensor)


def test_a_part_that_the_pipeline_calls_itself_counts_as_read(model: Path) -> None:
    skeleton = skeleton_of(model)
    values = ValuesRead(skeleton)

    found = values.run(lambda: skeleton.modules["unet"].conv_norm_out(torch.zeros(1, 8, 4, 4)))

    assert not isinstance(found, FakeTensor)
    assert set(values.names["unet"]) == {"conv_norm_out.weight", "conv_norm_out.bias"}


def test_shapes_types_and_places_are_no_values(model: Path) -> None:
    skeleton = skeleton_of(model)
    values = ValuesRead(skeleton)

    def look() -> int:
        weight = skeleton.modules["unet"].conv_in.weight
        skeleton.modules["unet"].to("cpu", torch.float32)
        return weight.shape[0] * weight.element_size()

    assert values.run(look) == 32
    assert values.names == {}


def test_more_values_than_a_bundle_keeps_are_refused(model: Path, monkeypatch) -> None:
    monkeypatch.setattr("qdx.exporter.capture.values_read.VALUES_READ_LIMIT_BYTES", 100)
    skeleton = skeleton_of(model)

    with pytest.raises(TargetRefusal, match=r"`unet\.conv_in\.weight`.* at most 100"):
        ValuesRead(skeleton).run(lambda: skeleton.modules["unet"].conv_in.weight.sum().item())


def test_a_parameter_that_the_pipeline_changes_is_refused(model: Path) -> None:
    skeleton = skeleton_of(model)

    with pytest.raises(TargetRefusal, match=r"`unet\.conv_in\.weight`.*changes this parameter"):
        ValuesRead(skeleton).run(lambda: skeleton.modules["unet"].conv_in.weight.data.mul_(2))


def of_another_class(folder: Path, target: Path, name: str) -> Path:
    shutil.copytree(folder, target)
    index = json.loads((target / "model_index.json").read_text())
    (target / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    return target


def test_attention_that_a_pipeline_keeps_and_reads_is_refused(
    text_model: Path, tmp_path: Path
) -> None:
    folder = of_another_class(text_model, tmp_path / "model", "StableDiffusionSAGPipeline")

    with pytest.raises(TargetRefusal, match="what a component's run left behind"):
        capture(skeleton_of(folder), {**CALL, "sag_scale": 0.75}, shapes="static")


def test_a_gradient_through_a_component_is_refused(text_model: Path, tmp_path: Path) -> None:
    name = "StableDiffusionAttendAndExcitePipeline"
    folder = of_another_class(text_model, tmp_path / "model", name)

    with pytest.raises(TargetRefusal, match=r"`unet\.forward`.* gradient with respect to `sample`"):
        capture(skeleton_of(folder), {**CALL, "token_indices": [1]}, shapes="static")


def test_values_are_those_of_the_stored_pipeline(text_model: Path) -> None:
    skeleton = skeleton_of(text_model)
    words = torch.tensor([[3, 5]])
    values = ValuesRead(skeleton)

    def embed() -> torch.Tensor:
        return skeleton.modules["text_encoder"].get_input_embeddings()(words)

    expected = load("sd", text_model).text_encoder.get_input_embeddings()(words)
    assert torch.equal(values.run(embed), expected)
    assert len(values.names["text_encoder"]) == 1
