"""What is done to an opened pipeline has an effect, changes nothing in values, or is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.hooks import HookRegistry

import qdx
from qdx.exporter.errors import UsageError
from qdx.runtime.generate import generate
from tests.support.smallest import build_smallest_text_to_image

CALL = {"prompt": "a red fox", "num_inference_steps": 2, "height": 16, "width": 16}


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory):
    return build_smallest_text_to_image(tmp_path_factory.mktemp("opened") / "model")


@pytest.fixture(scope="module", name="bundle")
def _bundle(model):
    pytest.importorskip("onnxruntime")
    return qdx.export(
        model, target="onnxruntime", plan="float32", output=model.parent / "bundle", call=CALL
    ).bundle


@pytest.fixture(scope="module", name="usual")
def _usual(bundle):
    return picture(qdx.open(bundle))


@pytest.fixture(name="pipeline")
def _pipeline(bundle):
    return qdx.open(bundle)


def picture(pipeline):
    return generate(pipeline, {**CALL, "output_type": "np"}, seed=1)["images"]


def test_a_prompt_that_is_cut_is_told_with_its_numbers(pipeline):
    limit = pipeline.tokenizer.model_max_length
    with pytest.warns(qdx.QdxWarning, match=f"is cut, .* tokens, and `tokenizer` reads {limit};"):
        generate(pipeline, {**CALL, "prompt": "a red fox " * limit, "output_type": "np"}, seed=1)


def attention(pipeline):
    return next(m for n, m in pipeline.unet.named_modules() if n.endswith("attn1"))


def schedule_anew(pipeline):
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)


HARMLESS = {
    "the processor": lambda p: p.to("cpu"),
    "float32": lambda p: p.to("cpu", torch.float32),
    "a progress bar": lambda p: p.set_progress_bar_config(disable=True),
    "a scheduler": schedule_anew,
    "slices of attention": lambda p: p.enable_attention_slicing(),
    "usual attention": lambda p: p.unet.set_default_attn_processor(),
    "slices of the batch": lambda p: p.vae.enable_slicing(),
    "a layout of memory": lambda p: p.unet.to(memory_format=torch.channels_last),
    "no gradients": lambda p: p.unet.requires_grad_(False),
    "adapters taken away": lambda p: p.unload_lora_weights(),
    "a parameter around the same values": lambda p: setattr(
        p.unet.conv_in, "weight", torch.nn.Parameter(p.unet.conv_in.weight.to("cpu"))
    ),
    "evaluation": lambda p: p.unet.eval(),
    "a registry of hooks without one": lambda p: HookRegistry.check_if_exists_or_initialize(p.unet),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_no_values_is_taken(pipeline, usual, change):
    change(pipeline)

    assert np.array_equal(picture(pipeline), usual)


def test_a_component_of_the_users_own_computes(pipeline, model, usual):
    from diffusers import DiffusionPipeline

    original = DiffusionPipeline.from_pretrained(model).unet
    with torch.no_grad():
        original.conv_out.bias.add_(1)
    pipeline.unet = original

    assert not np.allclose(picture(pipeline), usual, atol=0.01)


class Ignored:
    def __call__(self, attn, hidden_states, *args, **kwargs):
        return hidden_states


def replace_a_part(pipeline):
    pipeline.unet.conv_in = torch.nn.Conv2d(4, 8, 3, padding=1)


def assign_values(pipeline):
    weight = pipeline.unet.conv_in.weight
    weight.data = torch.zeros(weight.shape)


def assign_a_parameter(pipeline):
    shape = pipeline.unet.conv_in.weight.shape
    pipeline.unet.conv_in.weight = torch.nn.Parameter(torch.zeros(shape))


def assign_state(pipeline):
    module = pipeline.unet.conv_in
    module.load_state_dict(
        {n: torch.zeros(p.shape) for n, p in module.named_parameters()}, assign=True
    )


def swap_attention(pipeline):
    pipeline.unet.set_attn_processor(Ignored())


AT_CALL = {
    "a part": (replace_a_part, "part `conv_in`"),
    "values": (assign_values, "parameter `weight` was changed"),
    "a parameter": (assign_a_parameter, "parameter `weight` was changed"),
    "assigned state": (assign_state, "parameter `weight` was changed"),
    "attention": (swap_attention, "`processor`.* was changed to"),
    "a scale": (lambda p: setattr(attention(p), "scale", 3.0), "attribute `scale`"),
    "a hook": (lambda p: p.unet.conv_in.register_forward_hook(lambda *_: None), "a hook"),
    "training": (lambda p: p.unet.train(), "training mode"),
    "tiles": (lambda p: p.vae.enable_tiling(), "attribute `use_tiling`"),
}


@pytest.mark.parametrize(("change", "named"), AT_CALL.values(), ids=AT_CALL)
def test_a_component_that_was_changed_is_refused_when_it_is_called(pipeline, change, named):
    change(pipeline)

    with pytest.raises(UsageError, match=named):
        picture(pipeline)


def test_a_change_during_the_call_is_refused(pipeline):
    def swap(pipeline, step, timestep, kwargs):
        swap_attention(pipeline)
        return kwargs

    with pytest.raises(UsageError, match="`processor`"):
        pipeline(**CALL, callback_on_step_end=swap)


AT_ONCE = {
    "a lora": (lambda p: p.load_lora_weights({}), "load_lora_weights"),
    "adapters": (lambda p: p.set_adapters(["a"]), "set_adapters"),
    "a word": (lambda p: p.load_textual_inversion({}), "load_textual_inversion"),
    "pictures": (lambda p: p.load_ip_adapter("x", subfolder="", weight_name=""), "load_ip_adapter"),
    "a GPU": (lambda p: p.to("cuda"), "moved to cuda"),
    "sixteen bits": (lambda p: p.to(torch.float16), "moved to torch.float16"),
    "a component in sixteen bits": (lambda p: p.unet.half(), "`unet`: cannot be moved"),
    "offloading": (lambda p: p.enable_model_cpu_offload(), "enable_model_cpu_offload"),
    "state": (lambda p: p.unet.load_state_dict({}), "load_state_dict"),
    "saving": (lambda p: p.save_pretrained("x"), "save_pretrained"),
    "arithmetic in place": (lambda p: p.unet.conv_in.weight.mul_(2), "changing this parameter"),
    "arithmetic in place of data": (lambda p: p.unet.conv_in.weight.data.mul_(2), "changing"),
    "reading": (lambda p: p.unet.conv_in.weight.sum(), "its values are in the artifact"),
    "fused projections": (lambda p: p.fuse_qkv_projections(), "its values are in the artifact"),
}


@pytest.mark.parametrize(("change", "named"), AT_ONCE.values(), ids=AT_ONCE)
def test_what_has_no_effect_is_refused_at_once(pipeline, change, named):
    with torch.no_grad(), pytest.raises(UsageError, match=named):
        change(pipeline)


def test_a_gradient_is_refused(pipeline):
    sample = torch.zeros(1, 4, 2, 2, requires_grad=True)

    with pytest.raises(UsageError, match="a gradient with respect to `sample`"):
        pipeline.unet(sample, 1, encoder_hidden_states=torch.zeros(1, 77, 8))


def test_a_planted_adapter_is_caught(pipeline):
    """As libraries for adapters do it: a layer is replaced by one that holds it and adds to it."""

    class Adapted(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.down = layer, torch.nn.Linear(layer.in_features, 2)

    layer = attention(pipeline)
    layer.to_q = Adapted(layer.to_q)

    with pytest.raises(UsageError, match=r"part `to_q` \(torch.Linear\) was changed to"):
        picture(pipeline)
