from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensor

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import InvalidModel
from qdx.exporter.progress import SILENT
from qdx.runtime.component_weights import ComponentWeights
from qdx.runtime.generate import generate
from qdx.runtime.reference import record_calls
from tests.support.tiny import FAMILIES, build

COMPONENTS = ("text_encoder", "unet", "vae")


def rewrite(folder, component, change):
    """Writes a component's weights in another form."""
    for path in (folder / component).glob("*.safetensors"):
        save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path)


def halved(tensor):
    return tensor.half() if tensor.is_floating_point() else tensor


def build_in_half(family, folder):
    build(family, folder)
    for config in folder.glob("*/config.json"):
        rewrite(folder, config.parent.name, halved)
    return read_pipeline_folder(folder)


@pytest.fixture
def stored_in_half(tmp_path):
    return build_in_half("sd", tmp_path / "model")


def call_of(pipeline, family="sd"):
    return complete_call(pipeline, FAMILIES[family].arguments())


def fake_components(skeleton):
    return {
        name
        for name, module in skeleton.modules.items()
        if any(
            isinstance(p.data, FakeTensor) or isinstance(p, FakeTensor) for p in module.parameters()
        )
    }


def test_components_take_turns_and_the_picture_is_the_same(stored_in_half):
    whole = load_pipeline(stored_in_half).pipeline
    expected = generate(whole, call_of(whole), seed=0)
    skeleton = build_skeleton(stored_in_half)
    weights = ComponentWeights(skeleton)
    assert fake_components(skeleton) == set(COMPONENTS)
    most = []

    class Watching:
        def task(self, name, total=None):
            most.append(len(weights.loaded))
            return SILENT.task(name, total)

    weights._progress = Watching()
    with weights.attached():
        found = generate(skeleton.pipeline, call_of(skeleton.pipeline), seed=0)

    assert (found["images"] == expected["images"]).all()
    # When one is loaded, those before it have been let go.
    assert most == [0, 0, 0]
    assert weights.loaded == frozenset()
    assert fake_components(skeleton) == set(COMPONENTS)


@pytest.mark.parametrize(
    "family", ["ltx", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "ltx")]
)
def test_every_family_makes_the_same_with_its_weights_in_turns(tmp_path, family):
    """Of some the pipeline reads buffers of a component that it has not called, or calls two in turns."""
    folder = build_in_half(family, tmp_path / "model")
    whole = load_pipeline(folder).pipeline
    call = call_of(whole, family)
    expected = generate(whole, call, seed=0)
    skeleton = build_skeleton(folder)
    with ComponentWeights(skeleton).attached():
        found = generate(skeleton.pipeline, call, seed=0)

    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name], equal_nan=True) for name in expected)


def test_calls_are_recorded_on_top(stored_in_half):
    whole = load_pipeline(stored_in_half)
    call = call_of(whole.pipeline)
    _, expected = record_calls(whole.modules, lambda: generate(whole.pipeline, call, seed=0))
    skeleton = build_skeleton(stored_in_half)
    with ComponentWeights(skeleton).attached():
        _, found = record_calls(skeleton.modules, lambda: generate(skeleton.pipeline, call, seed=0))

    assert found.keys() == expected.keys()
    for where, record in expected.items():
        for one, other in zip(record.calls, found[where].calls, strict=True):
            assert all(torch.equal(other.outputs[n], t) for n, t in one.outputs.items())


def test_components_that_take_turns_again_and_again_are_loaded_twice_at_most(stored_in_half):
    skeleton = build_skeleton(stored_in_half)
    weights = ComponentWeights(skeleton)
    loads = []
    fill = weights._provide

    def provide(name):
        before = weights.loaded
        fill(name)
        loads.extend(weights.loaded - before)

    weights._provide = provide
    vae, text = skeleton.modules["vae"], skeleton.modules["text_encoder"]
    with torch.no_grad(), weights.attached():
        for _ in range(4):
            vae.decode(torch.zeros(1, vae.config.latent_channels, 8, 8))
            text(torch.zeros(1, 8, dtype=torch.int64))

        assert weights.loaded == {"vae", "text_encoder"}
        unet = skeleton.modules["unet"]
        states = torch.zeros(1, 8, unet.config.cross_attention_dim)
        unet(torch.zeros(1, unet.config.in_channels, 8, 8), 1, states)
        # Whatever took turns before, a new component begins a new part of the pipeline.
        assert weights.loaded == {"unet"}
    loads.remove("unet")
    assert sorted(loads) == ["text_encoder"] * 2 + ["vae"] * 2


def test_float32_components_and_those_that_must_be_whole_are_there_at_once(tmp_path):
    folder = build("sd", tmp_path / "model")
    rewrite(folder, "unet", halved)
    rewrite(folder, "vae", halved)
    skeleton = build_skeleton(read_pipeline_folder(folder))
    ComponentWeights(skeleton, whole={"vae"})

    assert fake_components(skeleton) == {"unet"}


def test_a_weight_that_is_not_finite_is_refused_when_its_component_is_called(tmp_path):
    folder = build("sd", tmp_path / "model")
    rewrite(folder, "unet", lambda tensor: torch.full_like(halved(tensor), torch.nan))
    skeleton = build_skeleton(read_pipeline_folder(folder))
    weights = ComponentWeights(skeleton)

    with pytest.raises(InvalidModel, match="NaN or infinite"), weights.attached():
        generate(skeleton.pipeline, call_of(skeleton.pipeline), seed=0)
    assert fake_components(skeleton) == {"unet"}


def test_mapped_weights_take_no_anonymous_memory_and_the_file_stays_as_it_is(tmp_path):
    folder = build("sd", tmp_path / "model")
    (path,) = (folder / "unet").glob("*.safetensors")
    before = path.read_bytes()
    module = load_pipeline(read_pipeline_folder(folder)).modules["unet"]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)

    assert path.read_bytes() == before
    stored = load_file(path)
    name, parameter = next(iter(module.named_parameters()))
    assert torch.equal(parameter, stored[name] + 1)
