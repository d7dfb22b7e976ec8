"""Faults planted in right packages show in their numbers, or are refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types
from torch import nn

from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from tests.support.coreml_packages import (
    converted,
    edit,
    operations,
    random,
    save,
    sqnr_db,
    weight_file,
)


class Block(nn.Module):
    """What faults hide in: layers of equal shapes, a scaled sum, norms before and after it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        with torch.no_grad():
            self.norm.weight.copy_(random(32, seed=5) + 1)
            self.norm.bias.copy_(random(32, seed=6))

    def forward(self, x):
        return torch.add(x, self.second(self.norm(self.first(x))), alpha=3)


X = random(2, 7, 32)


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    torch.manual_seed(0)
    module = Block().eval()
    with torch.no_grad():
        module.first.weight.mul_(2)
    path = tmp_path_factory.mktemp("block") / "model.mlpackage"
    return converted(module, {"x": X}, path), module(X).detach()


def quality(package, expected):
    return sqnr_db(expected, Interpreter(read_package(package)).run({"x": X.numpy()})["y"])


def only(model, kind):
    (found,) = (op for op in operations(model) if op.type == kind)
    return found


def swap(one, other):
    kept = type(one)()
    kept.CopyFrom(one)
    one.CopyFrom(other)
    other.CopyFrom(kept)


def swap_weights(model):
    """Each layer reads the other's place in the weight file."""
    names = [
        op.inputs["weight"].arguments[0].name for op in operations(model) if op.type == "linear"
    ]
    first, second = (op for name in names for op in operations(model) if op.outputs[0].name == name)
    swap(first.attributes["val"].blobFileValue, second.attributes["val"].blobFileValue)


def drop_alpha(model):
    """The sum reads what was to be multiplied first."""
    product, total = only(model, "mul"), only(model, "add")
    computed = {op.outputs[0].name for op in operations(model) if op.type == "linear"}
    (factor,) = (a for a in product.inputs.values() if a.arguments[0].name in computed)
    for argument in total.inputs.values():
        if argument.arguments[0].name == product.outputs[0].name:
            argument.CopyFrom(factor)


def swap_gamma_and_beta(model):
    norm = only(model, "layer_norm")
    swap(norm.inputs["gamma"], norm.inputs["beta"])


def norm_after_the_layer(model):
    """The block's norm comes after its second layer instead of before it."""
    constants_first(model)
    norm, product = only(model, "layer_norm"), only(model, "mul")
    first, second = (op for op in operations(model) if op.type == "linear")
    names = [op.outputs[0].name for op in (first, norm, second)]
    second.inputs["x"].arguments[0].name = names[0]
    norm.inputs["x"].arguments[0].name = names[2]
    for argument in product.inputs.values():
        if argument.arguments[0].name == names[2]:
            argument.arguments[0].name = names[1]
    # The two change places in the order of execution, too.
    swap(norm, second)


def constants_first(model):
    made = sorted(operations(model), key=lambda op: op.type != "const")
    copies = [type(op).FromString(op.SerializeToString()) for op in made]
    del operations(model)[:]
    operations(model).extend(copies)


def drop_gamma(model):
    only(model, "layer_norm").inputs.pop("gamma")


FAULTS = {
    "swapped weights": swap_weights,
    "a dropped alpha": drop_alpha,
    "gamma for beta": swap_gamma_and_beta,
    "a norm after the layer": norm_after_the_layer,
    "a norm without gamma": drop_gamma,
}


def test_the_right_package_is_right(block):
    package, expected = block

    assert quality(package, expected) > 55


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shows(block, fault, tmp_path):
    package, expected = block
    copy = shutil.copytree(package, tmp_path / "model.mlpackage")

    assert quality(edit(copy, FAULTS[fault]), expected) < 20


class TestPalette:
    """A palette of four bits whose codes, or whose table, are off by one."""

    @pytest.fixture
    def case(self, tmp_path):
        table = np.linspace(-1, 1, 16, dtype=np.float32)
        codes = np.random.default_rng(0).integers(0, 16, (8, 32))

        def build(mb, x):
            marked = codes.astype(types.nptype_from_builtin(types.uint4))
            weight = mb.constexpr_lut_to_dense(indices=marked, lut=table.reshape(1, 1, 16, 1))
            return mb.linear(x=x, weight=weight)

        path = save(build, {"x": X}, tmp_path / "model.mlpackage")
        return path, X @ torch.from_numpy(table[codes]).T

    def quality(self, path, expected):
        found = Interpreter(read_package(path)).run({"x": X.numpy()})
        return sqnr_db(expected, found["out0"])

    def blobs(self, path):
        program = read_package(path)
        (op,) = (op for op in program.main.operations if op.kind == "constexpr_lut_to_dense")
        return {name: operands[0].source for name, operands in op.inputs.items()}

    def test_the_right_package_is_right(self, case):
        assert self.quality(*case) > 120

    @pytest.mark.parametrize("what", ["indices", "lut"])
    def test_off_by_one(self, case, what):
        path, expected = case
        blob = self.blobs(path)[what]
        raw = bytearray(weight_file(path).read_bytes())
        part = slice(blob.offset_bytes, blob.offset_bytes + blob.size_bytes)
        data = np.frombuffer(bytes(raw[part]), np.uint8 if what == "indices" else np.float32)
        moved = ((data & 0xF) + 1) % 16 | (data & 0xF0) if what == "indices" else np.roll(data, 1)
        raw[part] = moved.astype(data.dtype).tobytes()
        weight_file(path).write_bytes(raw)

        assert self.quality(path, expected) < 30
