"""The noise of a group is that of the model in PyTorch with the group quantized by hand."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from qdx.analyze.analysis import MEASURES
from qdx.analyze.calls import Moment, RecordedInputs
from qdx.analyze.learned import Learned
from qdx.analyze.noise import Bench, Change
from qdx.analyze.offerings import offerings
from qdx.analyze.option_text import candidates
from qdx.analyze.prepared import prepare
from qdx.backends.registry import get_backend
from qdx.exporter.plan.schema.load import load_plan
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.targets.profile import load_target

WHERE = "unet.forward"
BLOCK = "mid_block.attentions.0.transformer_blocks.0"


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 8, 8, generator=generator).repeat(2, 1, 1, 1)
    text = torch.randn(2, 77, 32, generator=generator)
    return {"sample": sample, "timestep": torch.tensor([400]), "encoder_hidden_states": text}


@pytest.fixture(scope="module")
def made(tiny_sd):
    source = trace_pipeline(tiny_sd, {})
    profile = load_target("openvino")
    planned = plan_graphs(source, load_plan("float32"), profile)
    asked = candidates(["int8", "int3", "int8/int8:token"])
    offered = offerings(source, planned, profile, asked, [WHERE])
    backend = get_backend("openvino")
    return prepare(source, planned, offered, None, backend, [WHERE], Learned()), planned.graphs[
        WHERE
    ]


@pytest.fixture
def model(tiny_sd):
    return UNet2DConditionModel.from_pretrained(tiny_sd / "unet")


def answered(model, inputs):
    with torch.no_grad():
        return model(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]).sample


def expected(reference, found):
    def ratio(r, x):
        return float(((x - r) ** 2).sum() / (r**2).sum())

    r, x = reference.double(), found.double()
    return {
        "prediction": ratio(r, x),
        "unconditional": ratio(r[:1], x[:1]),
        "conditional": ratio(r[1:], x[1:]),
        "guidance": ratio(r[1:] - r[:1], x[1:] - x[:1]),
    }


def nearest(weight, steps):
    """Whole multiples of a scale for each output channel, from -steps to steps."""
    rows = weight.flatten(1)
    scales = rows.abs().amax(1, keepdim=True) / steps
    return ((rows / scales).round().clamp(-steps, steps) * scales).view_as(weight)


def measured(made, inputs, option, *keys):
    prepared, graph = made
    given = {
        s.name: inputs[s.name].to(getattr(torch, s.dtype)).reshape(s.shape) for s in graph.inputs
    }
    recorded = RecordedInputs(Moment(WHERE, 0, 0, 400.0, (0,)), (given,))
    bench = Bench(recorded, "timestep", 1 << 30, 100)
    found = bench.noise(Change(prepared.graphs[WHERE, option], keys)).numbers
    return dict(zip(MEASURES, found, strict=True))


@pytest.mark.parametrize(
    "keys",
    [
        ("conv_in",),
        ("conv_out",),
        (f"{BLOCK}.ff.net.2",),
        tuple(f"{BLOCK}.attn1.to_{letter}" for letter in "qkv"),
    ],
)
def test_weights_of_eight_bits(made, model, inputs, keys):
    reference = answered(model, inputs)
    for key in keys:
        weight = model.get_submodule(key).weight
        weight.data = nearest(weight.data, 127)

    found = measured(made, inputs, 1, *keys)
    assert found == pytest.approx(expected(reference, answered(model, inputs)), rel=1e-3)


def test_inputs_of_eight_bits_by_token(made, model, inputs):
    key = f"{BLOCK}.ff.net.2"
    reference = answered(model, inputs)
    layer = model.get_submodule(key)
    layer.weight.data = nearest(layer.weight.data, 127)

    def quantized(_, given):
        scales = given[0].abs().amax(-1, keepdim=True) / 127
        return ((given[0] / scales).round() * scales,)

    layer.register_forward_pre_hook(quantized)
    found = measured(made, inputs, 3, key)

    assert found == pytest.approx(expected(reference, answered(model, inputs)), rel=1e-3)


def test_what_no_target_stores_is_what_the_format_says(made, model, inputs):
    """Three bits, from -4 to 3 around zero, in the range of least squared error of each channel."""
    reference = answered(model, inputs)
    weight = model.conv_in.weight
    rows = weight.data.flatten(1)
    best, least = torch.zeros_like(rows), torch.full((len(rows), 1), torch.inf)
    for ratio in torch.linspace(0.3, 1, 701):
        scales = rows.abs().amax(1, keepdim=True) * ratio / 3
        values = (rows / scales).round().clamp(-4, 3) * scales
        error = ((values - rows) ** 2).sum(1, keepdim=True)
        best, least = torch.where(error < least, values, best), torch.minimum(error, least)
    weight.data = best.view_as(weight)

    found = measured(made, inputs, 2, "conv_in")
    wanted = expected(reference, answered(model, inputs))
    assert found["prediction"] == pytest.approx(wanted["prediction"], rel=0.25)
