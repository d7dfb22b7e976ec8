"""A copy of a component shares what was trained and nothing that a run could leave behind."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from qdx.exporter.capture.copies import copy_of
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.capture.left_behind import hand_back
from qdx.exporter.errors import TargetRefusal


class Rotary:
    table: torch.Tensor | None = None


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(2, 2)
        self.register_buffer("mean", torch.ones(2))
        self.rotary = Rotary()
        self.angles = torch.ones(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rotary.table = x
        return self.project(x)


Block.__module__ = "diffusers.models.block"  # its own methods are a component's


def test_weights_buffers_and_tables_are_the_same_tensors():
    block = Block()
    copied = copy_of(block, name="unet")
    assert copied.project.weight is block.project.weight
    assert copied.mean is block.mean
    assert copied.angles is block.angles


def test_what_a_run_leaves_in_a_copy_stays_there():
    block = Block()
    copy_of(block, name="unet")(torch.ones(1, 2))
    assert block.rotary.table is None


def test_a_copy_is_not_routed():
    block = Block()
    with intercept({"unet": block}, lambda call: "routed"):
        assert block(torch.ones(1, 2)) == "routed"
        assert isinstance(copy_of(block, name="unet")(torch.ones(1, 2)), torch.Tensor)


def test_what_cannot_be_copied_is_refused_by_name():
    block = Block()
    block.lock = threading.Lock()
    with pytest.raises(TargetRefusal, match="`unet`: its state cannot be copied: TypeError"):
        copy_of(block, name="unet")


def test_what_was_handed_back_to_a_helper_is_not_in_the_next_copy():
    """A table that a module keeps between calls would have no values in the trace."""
    block, copied = Block(), None
    with FakeTensorMode():
        copied = copy_of(block, name="unet")
        copied.rotary.table = torch.ones(3)
    hand_back(copied, block)
    assert isinstance(block.rotary.table, FakeTensor)
    assert copy_of(block, name="unet").rotary.table is None
    assert isinstance(block.rotary.table, FakeTensor)
