"""Masks that are known index what is not, as text models are cut to the tokens that count."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from qdx.exporter.capture.calls import CallRecord, LiveCall
from qdx.exporter.capture.fake_answers import fake_run
from qdx.exporter.capture.known_masks import by_numbers
from qdx.exporter.capture.known_values import LISTED_LIMIT, as_values, has_values
from qdx.exporter.capture.skeleton import fake_parameters
from qdx.exporter.capture.trace import trace
from qdx.exporter.capture.watched_mode import WatchedMode
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

LENGTH = LISTED_LIMIT // 4 + 6  # of a text whose values nobody would list
MASK = (torch.arange(LENGTH) % 3 == 0)[None]


class Sorted(nn.Module):
    """Puts the tokens that count first, and adds nothing for a picture without content."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(
        self, text: torch.Tensor, mask: torch.Tensor, picture: torch.Tensor
    ) -> torch.Tensor:
        rows = [
            torch.cat([row[keep.bool()], row[~keep.bool()]])
            for row, keep in zip(self.project(text), mask, strict=True)
        ]
        found = torch.stack(rows)
        return found if torch.all(picture == 0) else found + picture.mean()


def test_what_is_computed_stays_open_and_what_decides_is_fixed():
    mode = WatchedMode()
    with fake_parameters(mode), torch.no_grad():
        module = Sorted().eval()
    skeleton = SimpleNamespace(mode=mode, modules={"transformer": module})
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, LENGTH, 4, generator=generator)
    picture = torch.zeros(1, 3, LISTED_LIMIT)
    call = LiveCall(
        "transformer",
        "forward",
        module.forward,
        {"text": text, "mask": MASK.long(), "picture": picture},
        module,
    )

    found = fake_run(skeleton, call)
    assert sorted(found.fixed) == ["mask", "picture"]
    assert tuple(found.output.shape) == (1, LENGTH, 4)

    real = Sorted().eval()
    weights = {
        name: LazyWeight(name, tuple(value.shape), value.dtype, value.detach)
        for name, value in real.named_parameters()
    }
    described = {"text": torch.empty(text.shape, device="meta"), **found.fixed}
    record = CallRecord("transformer", "forward", described, fixed=found.fixed)
    graph = trace(skeleton, record, LazyWeights(weights))
    assert [spec.name for spec in graph.inputs] == ["text"]
    (output,) = run(graph, {"text": text}).values()
    with torch.no_grad():
        assert torch.allclose(output, real(text, MASK.long(), picture), atol=1e-6)


def test_zeros_that_stand_for_an_answer_are_no_values():
    mode = WatchedMode()
    with fake_parameters(mode), torch.no_grad():
        module = Sorted().eval()
    skeleton = SimpleNamespace(mode=mode, modules={"transformer": module}, folder=None)
    picture = torch.zeros(1, 3, LISTED_LIMIT)
    arguments = {"text": torch.zeros(1, LENGTH, 4), "mask": MASK.long(), "picture": picture}
    call = LiveCall("transformer", "forward", module.forward, arguments, None)

    assert "picture" in fake_run(skeleton, call).fixed
    with pytest.raises(DynamicOutputShapeException):
        fake_run(skeleton, call, {tuple(picture.shape)})


@pytest.mark.parametrize(
    "index", [MASK[0], (MASK[0], slice(1, 3)), (slice(None), torch.tensor([True, False]))]
)
def test_numbers_take_the_place_of_a_mask(index):
    tensor = torch.arange(LENGTH * 2.0).reshape(LENGTH, 2)
    args = by_numbers(torch.Tensor.__getitem__, (tensor, index), lambda _: True)

    assert not any(getattr(part, "dtype", None) == torch.bool for part in args[1])
    assert torch.equal(tensor[args[1]], tensor[index])


def test_a_mask_that_nobody_knows_and_other_functions_stay():
    args = (torch.zeros(LENGTH), MASK[0])
    assert by_numbers(torch.Tensor.__getitem__, args, lambda _: False) is args
    assert by_numbers(torch.add, args, lambda _: True) is args


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (torch.tensor(3), 3),
        (torch.tensor([[1, 2]]), [[1, 2]]),
        (torch.full((3, LISTED_LIMIT), 2.0), {"all": 2.0, "shape": [3, LISTED_LIMIT]}),
    ],
)
def test_values_as_json_has_them(tensor, values):
    assert as_values(tensor) == values
    assert has_values(tensor, values)
    assert has_values(tensor, tensor.clone())
    assert not has_values(tensor + 1, values)
    assert not has_values(tensor[..., None], values)
    assert not has_values(None, values)


def test_a_value_that_differs_at_one_place_is_another():
    tensor = torch.zeros(3, LISTED_LIMIT)
    values = as_values(tensor)
    tensor[2, 7] = 1
    assert not has_values(tensor, values)
    assert isinstance(as_values(tensor), list)
