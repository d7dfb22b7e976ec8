"""Reading packages: what a program is, and what strangers may write."""

from __future__ import annotations

import random as chance
import shutil

import numpy as np
import pytest
import torch

from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from qdx.exporter.errors import InvalidBundle, TargetRefusal, UsageError
from qdx.exporter.graph.ir.graph import TensorSpec
from tests.support.coreml_packages import (
    edit,
    operations,
    program_file,
    random,
    save,
    weight_file,
)

WEIGHT = random(5, 4, seed=1).numpy()
INPUTS = {"x": random(3, 4)}


def linear(mb, x):
    return mb.relu(x=mb.linear(x=x, weight=WEIGHT))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save(linear, INPUTS, tmp_path_factory.mktemp("package") / "model.mlpackage")


@pytest.fixture
def package(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model.mlpackage")


def test_a_program_is_plain_values(original):
    program = read_package(original)

    assert program.specification_version == 9
    assert program.default == "main"
    assert program.inputs == (TensorSpec("x", "float32", (3, 4)),)
    assert program.outputs == (TensorSpec("out0", "float32", (3, 5)),)
    computed = [op for op in program.main.operations if op.kind != "const"]
    assert [op.kind for op in computed] == ["linear", "relu", "identity"]
    assert str(computed[0].outputs[0].type) == "float32[3, 5]"
    constants = {
        op.outputs[0].name: op.inputs["val"][0]
        for op in program.main.operations
        if op.kind == "const"
    }
    (weight,) = computed[0].inputs["weight"]
    assert np.array_equal(constants[weight].array(), WEIGHT)
    assert constants[weight].size_bytes == WEIGHT.nbytes


@pytest.mark.parametrize(("target", "version"), [("iOS16", 7), ("iOS17", 8), ("iOS18", 9)])
def test_every_target_is_read(tmp_path, target, version):
    path = save(linear, INPUTS, tmp_path / "model.mlpackage", target=target)

    program = read_package(path)

    assert program.specification_version == version
    assert program.main.opset == f"CoreML{version - 2}" or program.main.opset


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"rootModelIdentifier": "a"}',
     '{"rootModelIdentifier": "a", "itemInfoEntries": []}',
     '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {}}}',
     '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": 1}}}',
     '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "missing.mlmodel"}}}',
     '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "../../secret"}}}',
     '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "/etc/passwd"}}}'],
)  # fmt: skip
def test_manifests_that_lead_nowhere_are_refused(package, text):
    (package / "Manifest.json").write_text(text)

    with pytest.raises(InvalidBundle):
        read_package(package)


def test_a_missing_package_is_refused(tmp_path):
    with pytest.raises(InvalidBundle, match="not found"):
        read_package(tmp_path / "none.mlpackage")


def test_links_out_of_the_package_are_refused(package, tmp_path):
    secret = tmp_path / "secret"
    shutil.move(weight_file(package), secret)
    weight_file(package).symlink_to(secret)

    with pytest.raises(InvalidBundle, match="symbolic link"):
        read_package(package)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "@model_path/../../secret", "weights/weight.bin", "@model_path/none.bin"],
)
def test_weights_outside_of_the_package_are_refused(package, name):
    def change(model):
        for op in operations(model):
            value = op.attributes["val"] if op.type == "const" else None
            if value is not None and value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = name

    with pytest.raises(InvalidBundle):
        read_package(edit(package, change))


def test_a_model_that_is_no_program_is_refused(package):
    def change(model):
        model.neuralNetwork.SetInParent()

    with pytest.raises(InvalidBundle, match="expected an ML program"):
        read_package(edit(package, change))


FAULTS = {
    "no main function": lambda m: m.mlProgram.functions.pop("main"),
    "no block of its opset": lambda m: setattr(m.mlProgram.functions["main"], "opset", "CoreML1"),
    "another input": lambda m: setattr(m.description.input[0], "name", "z"),
    "another type of input": lambda m: setattr(
        m.description.input[0].type.multiArrayType, "dataType", 131104
    ),
    "an image": lambda m: m.description.input[0].type.imageType.SetInParent(),
    "an unknown output": lambda m: setattr(m.description.output[0], "name", "z"),
    "a value twice": lambda m: operations(m).append(operations(m)[-1]),
    "a value before it is made": lambda m: operations(m).insert(0, operations(m)[-1]),
    "a name that nothing has": lambda m: setattr(
        operations(m)[-1].inputs["x"].arguments[0], "name", "nothing"
    ),
    "an argument with two values": lambda m: operations(m)[-1].inputs["x"].arguments.add(name="x"),
    "an argument without values": lambda m: operations(m)[-1].inputs["x"].ClearField("arguments"),
    "a missing argument": lambda m: operations(m)[-1].inputs.pop("x"),
    "an unknown element type": lambda m: setattr(
        operations(m)[-1].outputs[0].type.tensorType, "dataType", 99
    ),
    "a huge rank": lambda m: [
        operations(m)[-1].outputs[0].type.tensorType.dimensions.add() for _ in range(20)
    ],
    "a huge size": lambda m: setattr(
        operations(m)[-1].outputs[0].type.tensorType.dimensions[0].constant, "size", 1 << 62
    ),
    "a nameless value": lambda m: setattr(operations(m)[-1].outputs[0], "name", ""),
    "a constant of another type": lambda m: setattr(blob(m).type.tensorType, "dataType", 10),
    "a constant of open sizes": lambda m: (
        blob(m).type.tensorType.dimensions[0].unknown.SetInParent()
    ),
    "a constant elsewhere in its file": lambda m: setattr(blob(m).blobFileValue, "offset", 128),
    "a constant without a value": lambda m: blob(m).ClearField("value"),
    "a list instead of a tensor": lambda m: blob(m).type.listType.SetInParent(),
}


def constant_with_two_values(model):
    (op, *_) = (op for op in operations(model) if op.type == "const")
    value = op.attributes.pop("val")
    for _ in range(2):
        op.inputs["val"].arguments.add().value.CopyFrom(value)


def text_for_a_tensor(model):
    name = operations(model)[-1].attributes["name"]
    operations(model)[-1].inputs["x"].arguments[0].value.CopyFrom(name)


FAULTS |= {
    "a constant with two values": constant_with_two_values,
    "a text for a tensor": text_for_a_tensor,
}


def blob(model):
    return next(
        op.attributes["val"]
        for op in operations(model)
        if op.type == "const" and op.attributes["val"].WhichOneof("value") == "blobFileValue"
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_malformed_programs_are_refused(package, fault):
    edit(package, FAULTS[fault])

    with pytest.raises(InvalidBundle):
        Interpreter(read_package(package)).run({"x": INPUTS["x"].numpy()})


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("which", [program_file, weight_file])
def test_truncated_files_are_refused(package, share, which):
    path = which(package)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])

    with pytest.raises(InvalidBundle):
        Interpreter(read_package(package)).run({"x": INPUTS["x"].numpy()})


def test_altered_bytes_never_cause_another_kind_of_error(package):
    """A changed value may be read as such; all else is refused in words."""
    path = program_file(package)
    raw = path.read_bytes()
    dice = chance.Random(0)
    refused = 0
    for _ in range(300):
        altered = bytearray(raw)
        for _ in range(dice.randint(1, 4)):
            altered[dice.randrange(len(raw))] = dice.randrange(256)
        path.write_bytes(bytes(altered))
        try:
            Interpreter(read_package(package)).run({"x": INPUTS["x"].numpy()})
        except (InvalidBundle, TargetRefusal, UsageError):
            refused += 1

    assert refused > 100


def test_immediate_values_are_those_of_their_type(package):
    value = np.arange(4, dtype=np.int32)

    def build(mb, x):
        return mb.add(x=mb.cast(x=x, dtype="int32"), y=value)

    save(build, {"x": torch.zeros(3, 4)}, package)

    def change(model):
        (tensor,) = (
            op.attributes["val"].immediateValue.tensor
            for op in operations(model)
            if op.type == "const" and len(op.attributes["val"].type.tensorType.dimensions) == 1
        )
        tensor.ints.values.append(5)

    with pytest.raises(InvalidBundle, match="has 5 elements, expected 4"):
        read_package(edit(package, change))


def test_weights_nested_without_end_are_refused(package):
    def build(mb, x):
        half = np.float16([[1.0, 2.0], [3.0, 4.0]])
        return mb.add(x=x, y=mb.constexpr_cast(source_val=half, output_dtype="fp32"))

    save(build, {"x": torch.zeros(2, 2)}, package)

    def change(model):
        place, cast = next(
            (i, op) for i, op in enumerate(operations(model)) if op.type == "constexpr_cast"
        )
        made = [type(cast).FromString(cast.SerializeToString()) for _ in range(5000)]
        for index, op in enumerate(made):
            op.outputs[0].name = f"nested_{index}"
            if index:
                op.inputs["source_val"].arguments[0].name = f"nested_{index - 1}"
        rest = [type(cast).FromString(op.SerializeToString()) for op in operations(model)]
        rest[place].inputs["source_val"].arguments[0].name = "nested_4999"
        del operations(model)[:]
        operations(model).extend([*rest[:place], *made, *rest[place:]])

    with pytest.raises(InvalidBundle, match="nested 5 deep"):
        Interpreter(read_package(edit(package, change)))
