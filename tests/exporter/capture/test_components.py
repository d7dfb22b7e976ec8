"""Components of every kind are built: models of several models, guiders, classes under old names; others say why not when used."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import (
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.folder import read_pipeline_folder, resolve_class
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.weights import bind_weights
from tests.support.tiny import FAMILIES, build, load


def edit_index(folder, **entries):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CLIPFeatureExtractor", "CLIPImageProcessor"),
        ("DPTFeatureExtractor", "DPTImageProcessor"),
        ("T5TokenizerFast", "T5Tokenizer"),
    ],
)
def test_classes_that_transformers_dropped_are_those_that_took_their_place(old, new):
    import transformers

    assert issubclass(resolve_class("transformers", old, where="x"), getattr(transformers, new))


def test_classes_of_pipelines_that_are_deprecated_are_found():
    found = resolve_class("unidiffuser", "UniDiffuserTextDecoder", where="x")

    assert found.__name__ == "UniDiffuserTextDecoder"


def test_a_model_of_several_models_is_built_read_and_traced(tmp_path):
    pipeline = load("sd-controlnet", build("sd-controlnet", tmp_path / "one"))
    unet = pipeline.unet.config
    net = dict(pipeline.controlnet.config)
    nets = [
        ControlNetModel(**{k: v for k, v in net.items() if not k.startswith("_")}) for _ in "ab"
    ]
    parts = dict(pipeline.components) | {"controlnet": MultiControlNetModel(nets)}
    folder = tmp_path / "several"
    StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False).save_pretrained(
        folder
    )
    picture = torch.zeros(1, 3, 64, 64)

    skeleton = build_skeleton(read_pipeline_folder(folder))
    checkpoint = open_weights(skeleton.folder.components["controlnet"])
    weights = bind_weights(skeleton.modules["controlnet"], checkpoint, component="controlnet")
    call = {"prompt": "a", "height": 64, "width": 64, "num_inference_steps": 1}
    records = dry_run(skeleton, {**call, "image": [picture, picture]})
    graph = trace(skeleton, next(r for r in records if r.component == "controlnet"), weights)

    name = "nets.1.controlnet_cond_embedding.conv_in.weight"
    assert torch.equal(weights[name].read(), nets[1].controlnet_cond_embedding.conv_in.weight)
    assert len(checkpoint.files) == 2
    assert len(graph.outputs) == len(unet.block_out_channels) * 2 + 2 - 1


@pytest.fixture
def sd(tmp_path):
    return build("sd", tmp_path / "sd")


def test_a_part_that_cannot_be_built_says_why_when_it_is_used(sd):
    extractor = sd / "feature_extractor"
    extractor.mkdir()
    (extractor / "preprocessor_config.json").write_text("{}")
    edit_index(sd, feature_extractor=["transformers", "NoSuchImageProcessor"])

    skeleton = build_skeleton(read_pipeline_folder(sd))

    assert "NoSuchImageProcessor" in skeleton.omitted["feature_extractor"]
    assert dry_run(skeleton, FAMILIES["sd"].arguments())
    with pytest.raises(InvalidModel, match="NoSuchImageProcessor"):
        skeleton.pipeline.feature_extractor(images=None)
    with pytest.raises(InvalidModel, match="NoSuchImageProcessor"):
        _ = skeleton.pipeline.feature_extractor.size


def test_a_part_that_computes_is_never_left_out(sd):
    edit_index(sd, vae=["diffusers", "NoSuchAutoencoder"])

    with pytest.raises(InvalidModel, match="NoSuchAutoencoder"):
        build_skeleton(read_pipeline_folder(sd))


def test_code_that_a_library_class_takes_the_place_of_is_not_asked_for(sd):
    path = sd / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "x.X"}}))

    component = read_pipeline_folder(sd).components["text_encoder"]

    assert "auto_map" not in component.config


def test_a_guider_is_built_from_its_own_configuration(tmp_path):
    from diffusers import ClassifierFreeGuidance

    from qdx.exporter.capture.folder import Component
    from qdx.exporter.capture.skeleton import build_component

    ClassifierFreeGuidance(guidance_scale=3.5).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "guider_config.json").read_text())
    component = Component("guider", "diffusers", "ClassifierFreeGuidance", tmp_path, config)

    assert build_component(component, FakeTensorMode()).guidance_scale == 3.5


def test_classes_that_only_a_pipelines_own_module_shows_are_found_there():
    import importlib

    home = importlib.import_module(
        "diffusers.pipelines.deprecated.wuerstchen.pipeline_wuerstchen_prior"
    )
    assert resolve_class("diffusers", "WuerstchenPrior", where="x", home=home)
    for name in ("logger", "NoSuchClass"):
        with pytest.raises(InvalidModel):
            resolve_class("diffusers", name, where="x", home=home)


def test_a_part_of_a_larger_model_is_built_from_its_own_configuration_or_its_part_of_the_whole(
    tmp_path,
):
    from transformers import CLIPConfig, CLIPTextConfig, T5GemmaModuleConfig

    from qdx.exporter.capture.folder import Component
    from qdx.exporter.capture.skeleton import build_component

    def built(name, config, home=None):
        component = Component("x", "transformers", name, tmp_path, config.to_dict())
        return build_component(component, FakeTensorMode(), home=home)

    text = CLIPTextConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    whole = CLIPConfig(text_config=text.to_dict())
    assert built("CLIPTextModel", whole).config.hidden_size == 16

    own = T5GemmaModuleConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, dropout_rate=0.0,
    )  # fmt: skip
    from transformers.models.t5gemma import modeling_t5gemma

    assert built("T5GemmaEncoder", own, modeling_t5gemma).config.hidden_size == 16
