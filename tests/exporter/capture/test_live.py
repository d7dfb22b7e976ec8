"""A pipeline in memory is read as a folder is: its weights from wherever they are, and nothing of it changes."""

from __future__ import annotations

import accelerate
import pytest
import torch
from torch import nn

from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.live import LiveCheckpoint, live_folder, weights_digest
from qdx.exporter.capture.model import read_model
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import InvalidModel, UsageError
from tests.support.live_pipelines import differences, plain, snapshot


@pytest.fixture
def pipeline(tmp_path):
    return plain(tmp_path)


def test_parts_and_configurations_are_as_the_pipeline_has_them(pipeline):
    folder = live_folder(pipeline)
    assert folder.pipeline_class == "StableDiffusionPipeline"
    assert set(folder.components) == {"vae", "text_encoder", "tokenizer", "unet", "scheduler"}
    assert folder.absent == ("safety_checker", "feature_extractor", "image_encoder")
    assert folder.components["unet"].config["_class_name"] == "UNet2DConditionModel"
    assert (folder.path / "tokenizer/tokenizer_config.json").exists()


def test_weights_are_those_in_memory_and_take_no_more_of_it(pipeline):
    folder = live_folder(pipeline)
    name = "conv_in.weight"
    found = open_weights(folder.components["unet"]).read(name)
    assert found.data_ptr() == pipeline.unet.conv_in.weight.data_ptr()


def test_a_skeleton_of_it_is_a_copy_that_leaves_it_as_it_was(pipeline):
    before = snapshot(pipeline)
    skeleton = build_skeleton(live_folder(pipeline))
    skeleton.modules["unet"].conv_in = nn.Identity()
    skeleton.pipeline.scheduler.set_timesteps(3)
    assert differences(before, snapshot(pipeline)) == []


def test_weights_in_sixteen_bits_are_traced_as_float32(pipeline):
    pipeline.to(torch.float16)
    skeleton = build_skeleton(live_folder(pipeline))
    assert {p.dtype for p in skeleton.modules["unet"].parameters()} == {torch.float32}
    stored = open_weights(live_folder(pipeline).components["unet"])["conv_in.weight"]
    assert stored.dtype == "float16"


def test_weights_that_were_moved_to_a_disk_are_read_from_there(pipeline, tmp_path):
    expected = {name: p.detach().clone() for name, p in pipeline.unet.named_parameters()}
    digest = weights_digest(pipeline.unet, "unet")
    accelerate.disk_offload(pipeline.unet, str(tmp_path), execution_device="cpu")
    assert {p.device.type for p in pipeline.unet.parameters()} == {"meta"}
    checkpoint = LiveCheckpoint(pipeline.unet, "unet")
    assert all(torch.equal(checkpoint.read(name), value) for name, value in expected.items())
    assert weights_digest(pipeline.unet, "unet") == digest
    unet = build_skeleton(live_folder(pipeline)).modules["unet"]
    assert not any(hasattr(part, "_hf_hook") for part in unet.modules())


def test_a_weight_that_is_nowhere_is_refused_by_name(pipeline):
    pipeline.unet.conv_in.to("meta")
    with pytest.raises(
        InvalidModel, match=r"`unet`: weight `conv_in\.weight` is on the meta device"
    ):
        LiveCheckpoint(pipeline.unet, "unet").read("conv_in.weight")


def test_a_weight_of_a_class_of_its_own_is_refused_by_name(pipeline):
    class Packed(torch.Tensor):
        pass

    weight = nn.Parameter(torch.ones(2).as_subclass(Packed), requires_grad=False)
    pipeline.unet.conv_in.register_parameter("bias", weight)
    with pytest.raises(InvalidModel, match=r"`unet`: weight `conv_in\.bias` is a Packed"):
        live_folder(pipeline)


def test_one_changed_bit_changes_the_digest(pipeline):
    before = weights_digest(pipeline.unet, "unet")
    with torch.no_grad():
        pipeline.unet.conv_in.bias[0] += 1
    assert weights_digest(pipeline.unet, "unet") != before


def test_something_else_than_a_pipeline_is_refused():
    with pytest.raises(UsageError, match="a Linear, expected a pipeline folder or a diffusers"):
        read_model(nn.Linear(1, 1))
