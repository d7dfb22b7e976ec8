"""Branches of guidance are found by equal latents."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.calibrate.guidance import GuidanceTracker, Rows
from qdx.exporter.errors import UsageError


def _latents(seed, batch=1):
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def _batched(seed, copies=2):
    return {"sample": torch.cat([_latents(seed)] * copies), "text": torch.randn(copies, 7, 3)}


def test_halves_of_a_batch_are_the_unconditional_and_the_conditional_branch():
    for branches, part in (("unconditional", 0), ("conditional", 1)):
        tracker = GuidanceTracker(branches)
        rows = tracker.rows(9.0, _batched(0), "unet.forward")
        values = torch.arange(12).reshape(2, 6)
        assert torch.equal(rows.of(values), values[part : part + 1])
        assert (tracker.copies, tracker.calls) == (2, 1)


def test_two_calls_with_the_same_latents_are_the_conditional_and_the_unconditional_branch():
    kept = {}
    for branches in ("conditional", "unconditional"):
        tracker = GuidanceTracker(branches)
        kept[branches] = [
            tracker.rows(float(9 - step), {"sample": _latents(step)}, "unet.forward").parts
            for step in range(2)
            for _ in range(2)
        ]
        assert (tracker.copies, tracker.calls) == (1, 2)
    assert kept == {"conditional": [1, 0, 1, 0], "unconditional": [0, 1, 0, 1]}


def test_both_branches_keep_everything():
    tracker = GuidanceTracker("both")
    assert tracker.rows(9.0, _batched(0, copies=3), "unet.forward").parts == 1
    assert tracker.copies == 3


def test_latents_are_known_by_name_and_else_by_size():
    for name, copies in (("hidden_states", 2), ("z", 1)):
        tracker = GuidanceTracker("both")
        inputs = {"encoder_hidden_states": torch.randn(2, 99, 8), name: torch.ones(2, 5, 8)}
        tracker.rows(9.0, inputs, "transformer.forward")
        assert tracker.copies == copies
    tracker.rows(8.0, {"x": torch.ones(2, 4, 8, 8), "text": torch.randn(2, 99, 8)}, "unet.forward")
    assert tracker.copies == 2


def test_a_batch_of_different_noise_is_no_guidance():
    tracker = GuidanceTracker("conditional")
    assert tracker.rows(9.0, {"sample": _latents(0, batch=2)}, "unet.forward").parts == 1
    assert tracker.copies == 1


def test_one_branch_of_more_than_two_is_refused():
    with pytest.raises(UsageError, match="more than two branches"):
        GuidanceTracker("conditional").rows(9.0, _batched(0, copies=3), "unet.forward")


def test_rows_leave_tensors_without_the_batch_alone():
    rows = Rows(part=1, parts=2, batch=2)
    assert rows.of(torch.ones(())).shape == ()
    assert rows.of(torch.ones(3, 4)).shape == (3, 4)
    assert rows.of(torch.ones(8, 4)).shape == (4, 4)  # batch and heads in one dimension
