"""Call records: names of tensors, constants, and one record per kind of call."""

from __future__ import annotations

import torch

from qdx.exporter.capture.calls import (
    CallRecord,
    LiveCall,
    bind,
    name_leaves,
    substitute,
)


def test_a_leaf_of_a_mapping_takes_its_own_key() -> None:
    tree = {"sample": 1, "added_cond_kwargs": {"text_embeds": 2, "time_ids": 3}}
    assert name_leaves(tree) == {"sample": 1, "text_embeds": 2, "time_ids": 3}


def test_keys_that_are_not_unique_are_named_by_their_path() -> None:
    tree = {"first": {"scale": 1}, "second": {"scale": 2}}
    assert name_leaves(tree) == {"first.scale": 1, "second.scale": 2}


def test_elements_of_a_sequence_take_its_name_and_an_index() -> None:
    assert name_leaves({"hidden_states": (1, 2)}) == {"hidden_states.0": 1, "hidden_states.1": 2}


def test_substitution_keeps_the_structure() -> None:
    tree = {"a": (1, {"b": 2}), "c": None}
    assert substitute(tree, {"b": 5}) == {"a": (1, {"b": 5}), "c": None}


def test_arguments_are_bound_to_parameter_names() -> None:
    def method(sample: int, timestep: int, scale: float = 1.0, **more: int) -> None: ...

    assert bind(method, (1,), {"timestep": 2, "extra": 3}) == {
        "sample": 1,
        "timestep": 2,
        "extra": 3,
    }


def test_flags_and_numbers_are_constants_but_not_the_packing_of_the_output() -> None:
    record = _record(
        sample=torch.zeros(1), scale=2.0, return_dict=False, generator=torch.Generator(), mask=None
    )
    assert record.constants() == {"scale": 2.0}


def _record(**arguments: object) -> CallRecord:
    return CallRecord("unet", "forward", arguments)


def test_a_live_call_knows_its_leaves_and_its_answer() -> None:
    def forward(
        sample: torch.Tensor, timestep: int, *, scale: float = 1.0, **more: torch.Tensor
    ) -> torch.Tensor:
        return sample * timestep * scale + more["bias"]

    sample, bias = torch.full((2,), 3.0), torch.ones(2)
    call = LiveCall("unet", "forward", forward, bind(forward, (sample, 2), {"bias": bias}))

    assert call.where == "unet.forward"
    assert call.leaves == {"sample": sample, "timestep": 2, "bias": bias}
    assert call.compute().tolist() == [7.0, 7.0]
