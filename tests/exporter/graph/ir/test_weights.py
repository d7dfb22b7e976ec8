"""Lazy weights: read when asked, under the names of every version of the libraries, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import LazyWeights, bind_weights


def _bound(module: nn.Module, stored: dict[str, torch.Tensor], folder: Path) -> LazyWeights:
    save_file(stored, folder / "model.safetensors")
    return bind_weights(module, open_checkpoint(folder), component="unet")


def test_a_weight_is_converted_to_the_dtype_of_its_parameter(tmp_path: Path) -> None:
    weights = _bound(
        nn.Linear(2, 3, bias=False), {"weight": torch.ones(3, 2, dtype=torch.float16)}, tmp_path
    )
    assert weights["weight"].read().dtype == torch.float32


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="`unet` has no weight `bias`"):
        _bound(nn.Linear(2, 3), {"weight": torch.ones(3, 2)}, tmp_path)


def test_a_weight_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"`weight` has shape \[2, 3\], expected \[3, 2\]"):
        _bound(nn.Linear(2, 3, bias=False), {"weight": torch.ones(2, 3)}, tmp_path)


def test_a_weight_that_is_not_finite_is_refused_when_it_is_read(tmp_path: Path) -> None:
    stored = torch.ones(3, 2)
    stored[1, 1] = float("nan")
    weights = _bound(nn.Linear(2, 3, bias=False), {"weight": stored}, tmp_path)
    with pytest.raises(InvalidModel, match="weight"):
        weights["weight"].read()


def test_tied_parameters_share_one_stored_tensor(tmp_path: Path) -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    weights = _bound(module, {"b.weight": torch.eye(2)}, tmp_path)
    assert weights.aliases == {"b.weight": "a.weight"}
    assert torch.equal(weights["a.weight"].read(), torch.eye(2))


def test_the_prefix_of_older_clip_checkpoints_is_understood(tmp_path: Path) -> None:
    weights = _bound(nn.Linear(2, 2, bias=False), {"text_model.weight": torch.eye(2)}, tmp_path)
    assert torch.equal(weights["weight"].read(), torch.eye(2))
