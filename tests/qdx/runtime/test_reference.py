from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.utils import BaseOutput
from hypothesis import given
from hypothesis import strategies as st

from qdx.exporter.capture.variants import CallSignature
from qdx.runtime.reference import _Spaced, record_calls
from tests.support.artifacts import make_reference


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return make_reference("sd", tmp_path_factory.mktemp("models") / "sd")


@given(st.integers(1, 200), st.integers(1, 20))
def test_kept_calls_are_the_first_the_last_and_evenly_spaced_ones(count, limit):
    spaced = _Spaced(limit)
    for _ in range(count):
        spaced.add({}, {})
    record = spaced.record()
    indices = [call.index for call in record.calls]

    assert record.times_called == count
    assert indices[0] == 0
    assert indices[-1] == count - 1
    assert indices == sorted(set(indices))
    assert len(indices) <= limit + 1
    assert len({b - a for a, b in itertools.pairwise(indices[:-1])}) <= 1
    if count <= limit:
        assert indices == list(range(count))


def test_every_method_of_a_pipeline_is_on_record(sd):
    assert {where: record.times_called for where, record in sd.records.items()} == {
        "text_encoder.forward": 2,
        "unet.forward": sd.records["unet.forward"].times_called,
        "vae.decode": 1,
    }
    call = sd.records["unet.forward"].calls[0]
    assert set(call.inputs) == {"sample", "timestep", "encoder_hidden_states"}
    # The pipeline asks for a bare tuple; the record has the field's name.
    assert set(call.outputs) == {"sample"}


def test_the_record_does_not_change_the_run(sd):
    from qdx.runtime.generate import generate

    plain = generate(sd.pipeline, sd.call, seed=0)

    assert (plain["images"] == sd.products["images"]).all()


def test_seeds_decide_the_picture_and_leave_the_global_state(sd):
    from qdx.runtime.generate import generate

    state = torch.random.get_rng_state()
    other = generate(sd.pipeline, sd.call, seed=1)

    assert (torch.random.get_rng_state() == state).all()
    assert (other["images"] != sd.products["images"]).any()


@pytest.fixture
def unet():
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()


def test_records_are_copies(unet):
    sample = torch.randn(1, 3, 8, 8)
    before = sample.clone()

    def run():
        output = unet(sample, 5).sample
        output.zero_()
        sample.zero_()

    _, records = record_calls({"unet": unet}, run)
    (call,) = records["unet.forward"].calls

    assert torch.equal(call.inputs["sample"], before)
    assert call.outputs["sample"].any()


def test_numbers_are_tensors_only_where_the_graph_takes_one(unet):
    def run():
        return unet(torch.randn(1, 3, 8, 8), 5)

    _, plain = record_calls({"unet": unet}, run)
    _, asked = record_calls(
        {"unet": unet}, run, graphs={"unet.forward": CallSignature(frozenset({"timestep"}))}
    )

    assert set(plain["unet.forward"].calls[0].inputs) == {"sample"}
    timestep = asked["unet.forward"].calls[0].inputs["timestep"]
    assert (timestep.item(), timestep.dtype, timestep.dim()) == (5, torch.int64, 0)


def test_a_call_is_filed_under_the_variant_that_takes_its_tensors():
    class Projection(UNet2DModel):
        def forward(self, text=None, seconds=None):
            return {"out": text if seconds is None else seconds}

    Projection.__module__ = UNet2DModel.__module__
    module = Projection.__new__(Projection)
    torch.nn.Module.__init__(module)

    def run():
        module(text=torch.zeros(1))
        module(seconds=torch.ones(1))
        module(text=torch.zeros(1))

    graphs = {
        "projection.forward": CallSignature(frozenset({"text"})),
        "projection.forward_2": CallSignature(frozenset({"seconds"})),
    }
    _, records = record_calls({"projection": module}, run, graphs=graphs)

    assert {where: record.times_called for where, record in records.items()} == {
        "projection.forward": 2,
        "projection.forward_2": 1,
    }
    assert set(records["projection.forward_2"].calls[0].inputs) == {"seconds"}


def test_a_run_that_calls_nothing_leaves_no_record(unet):
    result, records = record_calls({"unet": unet}, lambda: 7)

    assert (result, records) == (7, {})


@dataclass
class Residuals(BaseOutput):
    """Of a ControlNet: a list of tensors, and maybe one more."""

    blocks: list[torch.Tensor]
    middle: torch.Tensor | None = None


@pytest.mark.parametrize("with_middle", [False, True])
def test_a_list_of_tensors_is_given_as_the_method_gives_it(with_middle):
    class Control(torch.nn.Module):
        def forward(self, x, return_dict=True):
            found = Residuals([x + 1, x + 2], x if with_middle else None)
            if return_dict:
                return found
            return (found.blocks, found.middle) if with_middle else found.blocks

    module, x = Control(), torch.zeros(2)
    answer, records = record_calls({"control": module}, lambda: module(x, return_dict=False))

    blocks = answer[0] if with_middle else answer
    assert isinstance(blocks, list)
    assert [float(one.sum()) for one in blocks] == [2.0, 4.0]
    assert len(records["control.forward"].calls[0].outputs) == 2 + with_middle


def test_the_caller_gets_what_it_asked_for(unet):
    seen = {}

    def run():
        sample = torch.randn(1, 3, 8, 8)
        seen["tuple"] = unet(sample, 5, return_dict=False)
        seen["fields"] = unet(sample, 5)

    record_calls({"unet": unet}, run)

    assert isinstance(seen["tuple"], tuple)
    assert torch.equal(seen["tuple"][0], seen["fields"].sample)
