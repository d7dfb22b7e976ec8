"""Whole models, converted by coremltools and computed here, beside PyTorch."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from tests.support.coreml_packages import converted, random, sqnr_db
from tests.support.tiny.weights import randomise
from tests.support.tracing import Block

# What the types allow: sums in float32 in both, and one rounding to float16 for each operation.
DECIBELS = {"FLOAT32": 95, "FLOAT16": 45}


class Called(nn.Module):
    """A component's call with tensors in order."""

    def __init__(self, module, call):
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *tensors):
        return self.call(self.module, *tensors)


def quality(module, inputs, path, target, precision):
    with torch.no_grad():
        expected = module(*inputs.values())
    program = read_package(converted(module, inputs, path, target=target, precision=precision))
    given = {
        spec.name: x.numpy().astype(spec.dtype)
        for spec, x in zip(program.inputs, inputs.values(), strict=True)
    }
    (found,) = Interpreter(program).run(given).values()
    return sqnr_db(expected, found.astype(np.float64))


@pytest.mark.parametrize(
    ("precision", "target"),
    [
        pytest.param("FLOAT16", "iOS16", marks=pytest.mark.slow),
        ("FLOAT16", "iOS17"),
        pytest.param("FLOAT16", "iOS18", marks=pytest.mark.slow),
        ("FLOAT32", "iOS16"),
        pytest.param("FLOAT32", "iOS17", marks=pytest.mark.slow),
        ("FLOAT32", "iOS18"),
    ],
)
def test_a_piece_of_a_unet(tmp_path, target, precision):
    torch.manual_seed(0)
    block = Called(Block().eval(), lambda block, x, c: block(x, torch.tensor(0.5), c))
    inputs = {"x": random(2, 4, 8, 8), "context": random(2, 5, 16, seed=1)}

    found = quality(block, inputs, tmp_path / "model.mlpackage", target, precision)

    assert found > DECIBELS[precision]


class Split(nn.Module):
    """Attention head by head on channels-first tensors, as the Neural Engine likes it."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(32, 32, 1) for _ in range(3))

    def forward(self, x):
        made = []
        for q, k, v in zip(
            self.q(x).split(8, 1), self.k(x).split(8, 1), self.v(x).split(8, 1), strict=True
        ):
            scores = torch.einsum("bchq,bkhc->bkhq", q, k.transpose(1, 3)) * 8**-0.5
            made.append(torch.einsum("bkhq,bchk->bchq", scores.softmax(1), v))
        return torch.cat(made, 1)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_split_attention(tmp_path, target):
    torch.manual_seed(0)

    found = quality(
        Split().eval(), {"x": random(1, 32, 1, 12)}, tmp_path / "model.mlpackage", target, "FLOAT32"
    )

    assert found > DECIBELS["FLOAT32"]


def components(family):
    made = dict(getattr(import_module(f"tests.support.tiny.{family[0]}"), family[1])())
    randomise(made, 0)
    return made


CASES = {
    "unet": (
        ("unets", "sd"),
        "unet",
        lambda m, x, t, c: m(x, t, c, return_dict=False)[0],
        {
            "x": random(2, 4, 16, 16),
            "t": torch.tensor([10.0, 10.0]),
            "context": random(2, 77, 32, seed=1),
        },
    ),
    "text encoder": (
        ("unets", "sd"),
        "text_encoder",
        lambda m, i: m(i, return_dict=False)[0],
        {"ids": (torch.arange(77) % 50)[None].int()},
    ),
    "decoder": (
        ("unets", "sd"),
        "vae",
        lambda m, z: m.decode(z, return_dict=False)[0],
        {"z": random(1, 4, 8, 8)},
    ),
    "encoder": (
        ("unets", "sd"),
        "vae",
        lambda m, x: m._encode(x),
        {"x": random(1, 3, 32, 32)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize("precision", ["FLOAT16", "FLOAT32"])
@pytest.mark.parametrize("case", CASES)
def test_components_of_a_pipeline(tmp_path, case, precision, target):
    family, name, call, inputs = CASES[case]
    module = Called(components(family)[name].eval(), call)

    found = quality(module, inputs, tmp_path / "model.mlpackage", target, precision)

    assert found > DECIBELS[precision]
