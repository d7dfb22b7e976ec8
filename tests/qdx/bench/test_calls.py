"""The inputs that are measured with."""

from __future__ import annotations

import pytest
import torch

from qdx.bench.calls import reference_calls, seeded_calls
from qdx.bundle.reader import read_bundle
from qdx.exporter.errors import InvalidModel, UsageError


@pytest.fixture
def manifest(onnx_bundle):
    return read_bundle(onnx_bundle).manifest


def test_seeded_inputs_have_the_exported_shapes(manifest):
    found = seeded_calls(manifest)["unet.forward"]
    (inputs,) = found.inputs
    ports = {port.argument: port for port in manifest.components["unet"].methods["forward"].inputs}

    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        name: port.shape for name, port in ports.items()
    }
    assert found.calls_per_step == 1


def test_the_same_seed_gives_the_same_inputs(manifest):
    samples = [
        seeded_calls(manifest, seed=seed)["unet.forward"].inputs[0]["sample"] for seed in (0, 0, 1)
    ]

    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_a_dynamic_shape_wants_the_model(manifest):
    data = manifest.model_dump(by_alias=True)
    ports = data["components"]["unet"]["methods"]["forward"]["inputs"]
    ports[0]["shape"] = ("batch", *ports[0]["shape"][1:])
    with pytest.raises(UsageError, match="dynamic shape") as caught:
        seeded_calls(type(manifest).model_validate(data))

    assert "--model" in str(caught.value)


def test_the_pipelines_own_calls_follow_its_schedule(manifest, smallest):
    found = reference_calls(manifest, smallest, steps=3)["unet.forward"]
    timesteps = [float(inputs["timestep"]) for inputs in found.inputs]

    assert (len(timesteps), found.calls_per_step) == (3, 1)
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert [set(outputs) for outputs in found.outputs] == [{"sample"}] * 3


def test_another_model_is_refused(manifest, tiny_sd):
    with pytest.raises(InvalidModel, match=r"SHA-256|not found"):
        reference_calls(manifest, tiny_sd, steps=1)


def test_a_call_that_the_pipeline_rejects_is_refused(manifest, smallest):
    with pytest.raises(UsageError):
        reference_calls(manifest, smallest, steps=1, call={"no_such": 1})
