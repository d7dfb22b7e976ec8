"""How a program is computed, whatever its operations are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types

from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from qdx.backends.coreml.mil.registry import kernels
from qdx.exporter.errors import InvalidBundle, TargetRefusal, UsageError
from tests.support.coreml_packages import edit, operations, random, save

X = random(3, 4)
GIVEN = {"x": X.numpy()}


@pytest.fixture
def package(tmp_path):
    """`((x + 1) * 2, relu(x + 1))`."""

    def build(mb, x):
        more = mb.add(x=x, y=1.0, name="more")
        return mb.mul(x=more, y=2.0, name="twice"), mb.relu(x=more, name="positive")

    return save(build, {"x": X}, tmp_path / "model.mlpackage")


def test_results_have_the_package_s_names_and_belong_to_the_caller(package):
    interpreter = Interpreter(read_package(package))

    first = interpreter.run(GIVEN)
    first["out0"][:] = 7
    second = interpreter.run(GIVEN)

    assert list(second) == ["out0", "out1"]
    np.testing.assert_array_equal(second["out0"], (GIVEN["x"] + 1) * 2)
    np.testing.assert_array_equal(second["out1"], np.maximum(GIVEN["x"] + 1, 0))


def test_an_output_that_is_an_input_does_not_share_its_memory(tmp_path):
    package = save(lambda mb, x: x, {"x": X}, tmp_path / "model.mlpackage")
    given = {"x": X.numpy().copy()}

    found = Interpreter(read_package(package)).run(given)
    found["out0"][:] = 0

    assert np.array_equal(given["x"], X.numpy())


def test_every_computed_value_is_shown_in_order(package):
    seen = {}

    Interpreter(read_package(package)).run(GIVEN, observe=lambda n, v: seen.update({n: v.clone()}))

    assert list(seen) == ["more", "twice", "positive", "out0", "out1"]
    assert torch.equal(seen["more"], X + 1)


def test_what_an_observer_returns_stands_in_the_value_s_place(package):
    def zero(name, value):
        return torch.zeros_like(value) if name == "more" else None

    found = Interpreter(read_package(package)).run(GIVEN, observe=zero)

    assert not found["out0"].any()


def test_a_replacement_of_another_shape_is_refused(package):
    with pytest.raises(UsageError, match="replaced by shape"):
        Interpreter(read_package(package)).run(GIVEN, observe=lambda n, v: v[:1])


@pytest.mark.parametrize(
    "inputs",
    [{}, {"y": GIVEN["x"]}, {"x": GIVEN["x"][:2]}, {"x": GIVEN["x"].astype(np.float16)}],
)
def test_inputs_that_are_not_the_package_s_are_refused(package, inputs):
    with pytest.raises(UsageError, match="do not match"):
        Interpreter(read_package(package)).run(inputs)


def test_a_missing_operation_is_named_with_its_place(package):
    def change(model):
        for op in operations(model):
            op.type = {"mul": "magic", "relu": "wizardry"}.get(op.type, op.type)

    with pytest.raises(TargetRefusal, match="no operation `magic`") as caught:
        Interpreter(read_package(edit(package, change)))

    assert [refusal.site for refusal in caught.value.refusals] == ["twice", "positive"]


def test_an_argument_that_is_not_computed_is_named(package):
    def change(model):
        (relu,) = (op for op in operations(model) if op.type == "relu")
        relu.inputs["slope"].CopyFrom(relu.inputs["x"])

    with pytest.raises(TargetRefusal, match="relu has no `slope`"):
        Interpreter(read_package(edit(package, change)))


def test_a_result_of_another_shape_than_declared_is_refused(package):
    def change(model):
        (more,) = (op for op in operations(model) if op.type == "add")
        more.outputs[0].type.tensorType.dimensions[0].constant.size = 9

    with pytest.raises(InvalidBundle, match=r"add `more`: gives shape \[3, 4\].* float32\[9, 4\]"):
        Interpreter(read_package(edit(package, change))).run(GIVEN)


def test_a_result_of_another_type_than_declared_is_refused(package):
    def change(model):
        (more,) = (op for op in operations(model) if op.type == "add")
        more.outputs[0].type.tensorType.dataType = 23

    with pytest.raises(InvalidBundle, match=r"add `more`: gives torch.float32.* int32"):
        Interpreter(read_package(edit(package, change))).run(GIVEN)


def test_open_sizes_are_symbols_and_take_any(package):
    def change(model):
        function = model.mlProgram.functions["main"]
        values = [*function.inputs, *(out for op in operations(model) for out in op.outputs)]
        for value in values:
            for size in value.type.tensorType.dimensions[:1]:
                size.unknown.variadic = False

    program = read_package(edit(package, change))

    assert program.inputs[0].shape == ("x_0", 4)
    assert Interpreter(program).run({"x": np.ones((7, 4), np.float32)})["out0"].shape == (7, 4)


def test_a_function_is_chosen_by_name(package):
    def change(model):
        function = model.mlProgram.functions["main"]
        model.mlProgram.functions["other"].CopyFrom(function)
        opset = model.mlProgram.functions["other"].opset
        block = model.mlProgram.functions["other"].block_specializations[opset]
        block.outputs[:] = ["out1"]

    program = read_package(edit(package, change))

    assert list(Interpreter(program, "other").run(GIVEN)) == ["out1"]
    with pytest.raises(UsageError, match="has no function `third`"):
        Interpreter(program, "third")


class TestConstants:
    """Weights are read and decompressed when they are used, and kept while there is memory for them."""

    WEIGHT = random(64, 4, seed=1).numpy()
    CODES = np.random.default_rng(0).integers(-8, 8, (64, 4))

    @pytest.fixture
    def reads(self, monkeypatch):
        """Names of what is read from weight files."""
        from qdx.backends.coreml.mil.blob import Blob

        read, seen = Blob.read, []
        monkeypatch.setattr(Blob, "read", lambda blob: seen.append(blob.kind.name) or read(blob))
        return seen

    @pytest.fixture
    def program(self, tmp_path):
        def build(mb, x):
            codes = self.CODES.astype(types.nptype_from_builtin(types.int4))
            scale = np.full((64, 1), 0.5, np.float32)
            dense = mb.constexpr_blockwise_shift_scale(data=codes, scale=scale)
            return (
                mb.linear(x=mb.linear(x=x, weight=self.WEIGHT), weight=self.WEIGHT.T.copy()),
                mb.linear(x=x, weight=dense),
            )

        return read_package(save(build, {"x": X}, tmp_path / "model.mlpackage"))

    def test_nothing_is_read_before_the_first_run(self, program, reads):
        Interpreter(program)

        assert reads == []

    def test_what_fits_is_read_once(self, program, reads):
        interpreter = Interpreter(program)

        results = [interpreter.run(GIVEN)]
        first = list(reads)
        results += [interpreter.run(GIVEN) for _ in range(2)]

        assert first.count("int4") == 1
        assert reads == first
        for result in results:
            np.testing.assert_allclose(
                result["out0"], GIVEN["x"] @ self.WEIGHT.T @ self.WEIGHT, rtol=1e-4, atol=1e-4
            )
            np.testing.assert_allclose(
                result["out1"], GIVEN["x"] @ (0.5 * self.CODES.T), rtol=1e-5, atol=1e-5
            )

    def test_what_does_not_fit_is_read_each_time_and_is_the_same(self, program, reads):
        kept, anew = Interpreter(program), Interpreter(program, kept_bytes=0)

        first, once = anew.run(GIVEN), list(reads)
        second = anew.run(GIVEN)

        assert reads == once + once
        for name, value in kept.run(GIVEN).items():
            assert np.array_equal(value, first[name])
            assert np.array_equal(value, second[name])


def test_the_operations_that_diffusion_pipelines_need_are_there():
    needed = {
        "abs", "add", "batch_norm", "cast", "clip", "concat", "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale", "constexpr_cast", "constexpr_lut_to_dense",
        "constexpr_lut_to_sparse", "constexpr_sparse_blockwise_shift_scale",
        "constexpr_sparse_to_dense", "conv", "cos", "dequantize", "einsum", "equal", "exp", "exp2",
        "expand_dims", "fill", "fill_like", "gather", "gather_nd", "gelu", "greater_equal",
        "layer_norm", "less", "linear", "log", "logical_and", "logical_not", "matmul", "maximum",
        "minimum", "mul", "pad", "pow", "quantize", "real_div", "reduce_argmax", "reduce_max",
        "reduce_mean", "reduce_sum", "relu", "reshape", "rsqrt", "scaled_dot_product_attention",
        "select", "sigmoid", "silu", "sin", "slice_by_index", "softmax", "split", "sqrt", "square",
        "squeeze", "stack", "sub", "tanh", "tile", "transpose", "upsample_bilinear",
        "upsample_nearest_neighbor",
    }  # fmt: skip

    assert needed - set(kernels()) == set()
    assert len(kernels()) > 120
