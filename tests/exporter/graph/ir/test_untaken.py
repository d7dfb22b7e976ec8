"""A stored tensor that nothing takes is known to be of no use, or refused with what it is and the way out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import bind_weights, load_buffers


class Attention(nn.Module):
    """Stands for a model: one projection, one buffer that it computes itself."""

    _keys_to_ignore_on_load_unexpected = (r"^old_head\.",)

    def __init__(self):
        super().__init__()
        self.to_q = nn.Linear(4, 4, bias=False)
        self.register_buffer("table", torch.arange(3), persistent=False)


def bind(folder, module=None, *, without=(), **more):
    """Binds a model of one projection to its weight and more stored tensors."""
    stored = {
        "to_q.weight": torch.eye(4),
        **{name.replace("__", "."): t for name, t in more.items()},
    }
    kept = {name: tensor for name, tensor in stored.items() if name not in without}
    save_file(kept, folder / "model.safetensors")
    return bind_weights(module or Attention(), open_checkpoint(folder), component="unet")


@pytest.mark.parametrize(
    "name",
    [
        "text_model.embeddings.position_ids",
        "layers.3.self_attn.rotary_emb.inv_freq",
        "norm.num_batches_tracked",
        "table",
        "text_model.table",
        "old_head.weight",
    ],
)
def test_what_the_class_computes_itself_or_its_library_ignores_may_be_stored(tmp_path, name):
    assert bind(tmp_path, **{name: torch.ones(3)})["to_q.weight"].read().equal(torch.eye(4))


@pytest.mark.parametrize(
    ("name", "words", "way_out"),
    [
        ("to_q.lora_A.default.weight", "adapter such as LoRA", "unload_lora_weights()"),
        ("to_q.lora_layer.up.weight", "adapter such as LoRA", "fuse_lora()"),
        ("attn.processor.to_q_lora.down.weight", "adapter such as LoRA", "fuse_lora()"),
        ("to_q.lora_magnitude_vector", "adapter such as LoRA", "fuse_lora()"),
        ("attn2.processor.to_k_ip.0.weight", "IP-Adapter", "unload_ip_adapter()"),
        ("encoder_hid_proj.image_projection_layers.0.norm.bias", "IP-Adapter", "unload_ip_adapter()"),
        ("to_q.weight.absmax", "quantized", "original model"),
        ("to_q.weight_scale_2", "quantized", "original model"),
        ("down_blocks.0.motion_modules.0.norm.weight", "effect that would be lost", "save_pretrained"),
    ],
)  # fmt: skip
def test_a_tensor_that_nothing_takes_is_named_with_its_file_and_the_way_out(
    tmp_path, name, words, way_out
):
    with pytest.raises(InvalidModel, match="nothing in `unet`") as caught:
        bind(tmp_path, **{name: torch.ones(3), "zz.other": torch.ones(1)})

    assert f"`{name}` and 1 more" in caught.value.message
    assert "model.safetensors" in caught.value.message
    assert words in caught.value.message
    assert way_out in caught.value.hint


def test_a_weight_inside_an_adapter_is_missing_for_that_reason(tmp_path):
    with pytest.raises(InvalidModel, match=r"no weight `to_q\.weight`") as caught:
        bind(
            tmp_path,
            without=["to_q.weight"],
            to_q__base_layer__weight=torch.eye(4),
            to_q__lora_A__x__weight=torch.ones(1, 4),
        )

    assert "to_q.base_layer.weight" in caught.value.message
    assert "unload_lora_weights()" in caught.value.hint


def test_a_single_file_checkpoint_in_a_component_is_told(tmp_path):
    with pytest.raises(InvalidModel, match="layout of a single-file checkpoint") as caught:
        bind(
            tmp_path,
            without=["to_q.weight"],
            model__diffusion_model__input_blocks__0__weight=torch.eye(4),
        )

    assert "from_single_file" in caught.value.hint


def _encoder(saved_by):
    module = Attention()
    module.config = SimpleNamespace(architectures=saved_by)
    return module


def test_parts_of_the_larger_class_that_saved_the_weights_stay_unread(tmp_path):
    bind(
        tmp_path,
        _encoder(["BothEncoders"]),
        vision__weight=torch.ones(2),
        logit_scale=torch.ones(1),
    )

    for saved_by in (["Attention"], None):
        with pytest.raises(InvalidModel, match=r"vision\.weight"):
            bind(tmp_path, _encoder(saved_by), vision__weight=torch.ones(2))


def test_an_adapter_inside_what_is_read_is_no_part_of_a_larger_class(tmp_path):
    with pytest.raises(InvalidModel, match="adapter such as LoRA"):
        bind(tmp_path, _encoder(["BothEncoders"]), to_q__lora_A__x__weight=torch.ones(1, 4))


def test_a_weight_under_two_names_is_one_weight(tmp_path):
    weights = bind(tmp_path, text_model__to_q__weight=torch.eye(4))
    assert weights["to_q.weight"].read().equal(torch.eye(4))


def test_a_weight_under_two_names_with_two_values_is_refused_when_it_is_read(tmp_path):
    weights = bind(tmp_path, text_model__to_q__weight=torch.ones(4, 4))

    with pytest.raises(InvalidModel, match=r"`text_model\.to_q\.weight` and `to_q\.weight` differ"):
        weights["to_q.weight"].read()


def _normalization(folder, **stored):
    save_file(stored, folder / "model.safetensors")
    return nn.BatchNorm1d(2), open_checkpoint(folder)


def test_statistics_of_a_normalization_are_not_invented(tmp_path):
    module, checkpoint = _normalization(tmp_path, running_var=torch.ones(2))

    with pytest.raises(InvalidModel, match="no statistics `running_mean`"):
        load_buffers(module, checkpoint)


def test_a_buffer_of_another_shape_is_refused(tmp_path):
    module, checkpoint = _normalization(
        tmp_path, running_mean=torch.ones(3), running_var=torch.ones(2)
    )

    with pytest.raises(InvalidModel, match=r"`running_mean` has shape \[3\], expected \[2\]"):
        load_buffers(module, checkpoint)
