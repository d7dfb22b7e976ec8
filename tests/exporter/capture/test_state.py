"""What a pipeline changes in a component while it runs is told by name, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.capture.state import StateWatch, first_difference


class Processor:
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale


class OtherProcessor(Processor):
    pass


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.processor = Processor()
        self.heads = 2
        self.project = nn.Linear(2, 2)
        self.kept: list[torch.Tensor] = []


@pytest.fixture
def block():
    return nn.Sequential(Attention(), nn.ReLU())


def test_a_component_that_nobody_touches_has_not_changed(block):
    watch = StateWatch({"unet": block})
    block[0].kept.append(torch.ones(1))
    block[0]._cache = torch.ones(1)
    block.eval()
    with torch.no_grad():
        block[0].project.weight.zero_()
    assert watch.changes("unet") == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: setattr(a, "processor", OtherProcessor()), {"0.processor": "OtherProcessor(scale=1.0)"}),
        (lambda a: setattr(a.processor, "scale", 2.0), {"0.processor": "Processor(scale=2.0)"}),
        (lambda a: setattr(a, "heads", 4), {"0.heads": "4"}),
        (lambda a: delattr(a, "heads"), {"0.heads": "(none)"}),
        (lambda a: setattr(a, "project", nn.Identity()), {"0.project": "Identity"}),
    ],
    ids=["swapped", "scaled", "flag", "gone", "part"],
)  # fmt: skip
def test_what_changed_is_told_by_its_path(block, change, told):
    watch = StateWatch({"unet": block})
    change(block[0])
    assert told.items() <= watch.changes("unet").items()


def test_a_hook_counts(block):
    watch = StateWatch({"unet": block})
    block[0].register_forward_hook(lambda *_: None)
    assert list(watch.changes("unet")) == ["0._forward_hooks"]


def test_what_is_undone_has_not_changed(block):
    watch, before = StateWatch({"unet": block}), block[0].processor
    block[0].processor = OtherProcessor()
    block[0].processor = before
    assert watch.changes("unet") == {}


def test_the_first_difference_of_two_states():
    assert first_difference({"a": "1", "b": "2"}, {"a": "1"}) == ("b", "2", None)
