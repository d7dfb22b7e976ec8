"""Stored recipes: the quantizers of weights that an export writes, and those that none does."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from qdx.exporter.files import dump_json
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.plan.schema.scheme import Rotate
from qdx.exporter.transforms.bias_correction import CorrectBias
from qdx.exporter.transforms.given import TakeGiven
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.low_rank import Branch, SplitLowRank
from qdx.exporter.transforms.opened_attention import OpenAttention
from qdx.exporter.transforms.placement import (
    ActivationQuantization,
    SitePlacement,
    TimestepGroups,
)
from qdx.exporter.transforms.recipe import Recipe
from qdx.exporter.transforms.registry import TRANSFORMS
from qdx.exporter.transforms.rotation import RotateInputs
from qdx.exporter.transforms.rounding import RoundWeights
from qdx.exporter.transforms.smoothing import Smooth
from qdx.exporter.transforms.time_embedding import TimeTable


def recipe(**weight):
    site = {"key": "conv_in", "weight": weight}
    inserted = {"transform": "insert_quantizers", "sites": [site]}
    return {"schema": "qdx.recipe/2", "where": "unet.forward", "transforms": [inserted]}


@pytest.mark.parametrize(
    "weight",
    [
        {"dtype": "int8"},
        {"dtype": "nvfp4", "granularity": "block", "axis": 1, "block": 16},
        {"dtype": "mxfp8", "granularity": "block", "axis": 1, "block": 32},
        {"dtype": "palette6", "granularity": "tensor", "lut_dtype": "float16"},
        {"dtype": "palette4", "granularity": "grouped_channel", "axis": 1, "group": 16, "lut_dtype": "int8"},
    ],
)  # fmt: skip
def test_what_an_export_writes_is_taken(weight) -> None:
    stored = recipe(**weight)
    found = Recipe.from_json(stored, {})

    assert found.placement.sites[0].weight.dtype == weight["dtype"]
    assert found.to_json() == stored


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ({"dtype": "palette5", "granularity": "tensor", "lut_dtype": "float16"}, "dtype"),
        ({"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int4"}, "lut_dtype"),
        ({"dtype": "palette4", "granularity": "tensor"}, "a type of values for palettes"),
        ({"dtype": "int8", "lut_dtype": "int8"}, "a type of values for palettes"),
        ({"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int8", "symmetric": False}, "no zero point"),
        ({"dtype": "palette4", "lut_dtype": "int8"}, "table for the tensor or for groups"),
        ({"dtype": "palette4", "granularity": "block", "block": 16, "lut_dtype": "int8"}, "table for the tensor"),
        ({"dtype": "palette4", "granularity": "grouped_channel", "lut_dtype": "int8"}, "a group size"),
        ({"dtype": "palette4", "granularity": "tensor", "group": 2, "lut_dtype": "int8"}, "a group size"),
        ({"dtype": "int8", "granularity": "grouped_channel", "group": 2}, "for palettes alone"),
        ({"dtype": "nvfp4", "granularity": "block", "axis": 1, "block": 32}, "blocks of 16 along axis 1"),
        ({"dtype": "mxfp8", "granularity": "block", "axis": 0, "block": 32}, "blocks of 32 along axis 1"),
        ({"dtype": "nvfp4"}, "blocks of 16"),
        ({"dtype": "palette4", "granularity": "grouped_channel", "group": -1, "lut_dtype": "int8"}, "group"),
    ],
)  # fmt: skip
def test_what_no_export_writes_is_refused(weight, words) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe.from_json(recipe(**weight), {})


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ({"dtype": "nvfp4", "scale": 0.5, "zero_point": 0}, None),
        ({"dtype": "mxfp8", "scale": 1.0, "zero_point": 0}, None),
        ({"dtype": "mxfp8", "scale": 0.5, "zero_point": 0}, "scale 1"),
        ({"dtype": "nvfp4", "scale": 0.5, "zero_point": 1}, "a scale alone"),
        ({"dtype": "nvfp4", "scale": 0.5, "zero_point": 0, "bounds": [-7, 7]}, "a scale alone"),
        ({"dtype": "mxfp8", "scale": 1.0, "zero_point": 0, "token": True}, "a scale alone"),
    ],
)
def test_activations_in_blocks_of_floats_have_one_scale_or_none(activation, words) -> None:
    stored = recipe(dtype="int8")
    stored["transforms"][0]["sites"][0]["inputs"] = {"0": activation}
    if words is None:
        Recipe.from_json(stored, {})
        return
    with pytest.raises(ValueError, match=words):
        Recipe.from_json(stored, {})


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        ({"scale": 1.0, "token": True}, None),
        ({"scale": 1 / 127, "token": True, "peak": True}, None),
        ({"scale": 1 / 127, "token": True}, "scale 1 and no groups"),
        ({"scale": 1.0, "token": True, "peak": True}, "a scale below 1"),
        ({"scale": 1 / 127, "peak": True}, "a scale below 1"),
    ],
)
def test_tokens_are_divided_by_their_scale_or_by_their_largest_magnitude(activation, words) -> None:
    stored = recipe(dtype="int8")
    given = {"dtype": "int8", "zero_point": 0, **activation}
    stored["transforms"][0]["sites"][0]["inputs"] = {"0": given}
    if words is None:
        Recipe.from_json(stored, {})
        return
    with pytest.raises(ValueError, match=words):
        Recipe.from_json(stored, {})


def test_every_transform_survives_being_stored(tmp_path) -> None:
    weight = WeightQuantization("int4", "block", 1, 32)
    grouped = ActivationQuantization("int8", 0.5, 0, groups=TimestepGroups((5.0,), (1.0, 0.5)))
    shared = torch.tensor([0.5, 2.0])  # sites of one activation have the same factors
    stored = Recipe(
        "unet.forward",
        (
            OpenAttention(("attn.qk",)),
            Smooth({"to_q": shared, "to_k": shared}),
            TimeTable("timestep", (0.0, 16.0)),
            RotateInputs(
                {"to_q": Rotate(block=4)}, frozenset(["to_q"]), {4: torch.tensor([1.0, -1, 1, 1])}
            ),
            SplitLowRank(
                {
                    "to_q.weight": Branch(
                        ("to_q", "to_q#2"), False, torch.ones(2, 1), torch.ones(1, 2)
                    )
                }
            ),
            TakeGiven(
                "torchao",
                {"to_q.weight": WeightQuantization("int8")},
                {
                    "to_q.weight.values": torch.ones(2, 2, dtype=torch.int8),
                    "to_q.weight.scale": torch.ones(2),
                },
            ),
            RoundWeights({"to_q": "nearest"}),
            # The second call of a module has a key that no file of tensors can name.
            CorrectBias({"to_q#2": weight}, {"to_q#2": torch.tensor([-1.0, 0.0])}),
            InsertQuantizers((SitePlacement("to_q", {0: grouped}, weight),), "timestep"),
        ),
    )
    assert tuple(map(type, stored.transforms)) == tuple(TRANSFORMS)
    save_file(stored.tensors(), tmp_path / "tensors.safetensors")
    file = SafetensorsFile(tmp_path / "tensors.safetensors")
    tensors = {name: file.read(name) for name in file.tensors}
    found = Recipe.from_json(json.loads(dump_json(stored.to_json())), tensors)

    assert found.to_json() == stored.to_json()
    assert found.find(InsertQuantizers) == stored.find(InsertQuantizers)
    assert found.find(CorrectBias).weights == {"to_q#2": weight}
    assert all(torch.equal(tensors[name], one) for name, one in found.tensors().items())
    assert found.tensors().keys() == stored.tensors().keys() == tensors.keys()
