"""What only a device can prove: engines are built, recorded, loaded and run, and give ONNX Runtime's numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from qdx.backends.tensorrt.engine.audit import audit_engine
from qdx.backends.tensorrt.engine.build import build_engine
from qdx.backends.tensorrt.engine.package import compute_capability, tensorrt
from qdx.backends.tensorrt.engine.produce import check_model, produce_engine
from qdx.backends.tensorrt.engine.run import TensorRtRunner
from qdx.backends.tensorrt.recipe import BuildRecipe, InputShapes
from qdx.backends.tensorrt.versions import Version
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, TargetRefusal, UsageError
from tests.support.lint_models import linear

MOVING = {"x": InputShapes(min=(1, 32), opt=(16, 32), max=(64, 32))}


@pytest.fixture
def device():
    """Skips where there is no device or no TensorRT, and says which."""
    try:
        tensorrt()
        return compute_capability()
    except RuntimeMissing as missing:
        pytest.skip(missing.message)


def saved(folder, recipe, *, rows="16"):
    ir.save(linear(rows=rows, sizes=(32, 64)), folder / "model.onnx")
    (folder / "build.json").write_bytes(recipe.to_json())
    return folder


def numbers(rows):
    return np.random.default_rng(0).standard_normal((rows, 32)).astype(np.float32)


def expected(folder, x):
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.gpu
@pytest.mark.parametrize("graph", ["on", "off"])
def test_a_static_engine_gives_the_numbers_of_the_file(device, tmp_path, graph):
    folder = saved(tmp_path, BuildRecipe())
    made = produce_engine(folder, folder)
    runner = TensorRtRunner(folder, {"cuda_graph": graph})

    for _ in range(3):
        np.testing.assert_allclose(
            runner({"x": numbers(16)})["y"], expected(folder, numbers(16)), rtol=1e-4, atol=1e-4
        )
    assert made.record.compute_capability == device
    assert made.timing_cache


@pytest.mark.gpu
def test_open_sizes_move_within_the_profile(device, tmp_path):
    folder = saved(tmp_path, BuildRecipe(profiles=(MOVING,)), rows="rows")
    produce_engine(folder, folder)
    runner = TensorRtRunner(folder, {})

    for rows in (1, 64, 16, 16):
        np.testing.assert_allclose(
            runner({"x": numbers(rows)})["y"], expected(folder, numbers(rows)), rtol=1e-4, atol=1e-4
        )
    with pytest.raises(UsageError, match="no profile holds"):
        runner({"x": numbers(65)})


@pytest.mark.gpu
def test_a_stripped_engine_takes_its_weights_from_the_model(device, tmp_path):
    folder = saved(tmp_path, BuildRecipe(strip_weights=True, refit="identical"))
    produce_engine(folder, folder)

    found = TensorRtRunner(folder, {})({"x": numbers(16)})["y"]

    np.testing.assert_allclose(found, expected(folder, numbers(16)), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_the_engine_tells_of_its_integer_kernel_and_its_time(device, tmp_path):
    folder = saved(tmp_path, BuildRecipe(profiles=(MOVING,)), rows="rows")
    produce_engine(folder, folder)

    executed = audit_engine(folder, {})

    assert "int8" in {each.precision for each in executed}
    assert sum(each.time_share for each in executed) == pytest.approx(1)


@pytest.mark.gpu
def test_a_timing_cache_is_taken_again(device, tmp_path):
    folder = saved(tmp_path, BuildRecipe())
    first = produce_engine(folder, folder)
    second = produce_engine(folder, folder, timing_cache=first.timing_cache)

    assert first.record.timing_cache_sha256 is None
    assert second.record.timing_cache_sha256 is not None


@pytest.mark.gpu
def test_open_sizes_without_a_profile_are_refused(device, tmp_path):
    folder = saved(tmp_path, BuildRecipe(), rows="rows")

    with pytest.raises(InvalidBundle, match="no profile for the open sizes of x"):
        build_engine(folder / "model.onnx", BuildRecipe())


@pytest.mark.gpu
def test_what_the_parser_refuses_is_named_by_node(device, tmp_path):
    model = linear()
    model.graph.append(ir.node("Bernoulli", [model.graph.outputs[0]], name="random"))
    ir.save(model, tmp_path / "model.onnx")

    with pytest.raises(TargetRefusal) as caught:
        build_engine(tmp_path / "model.onnx", BuildRecipe())
    assert [refusal.site for refusal in caught.value.refusals] == ["random"]


def test_without_a_device_it_is_said_before_anything_is_read(tmp_path):
    try:
        compute_capability()
    except RuntimeMissing:
        pass
    else:
        pytest.skip("there is a device")
    folder = saved(tmp_path, BuildRecipe())

    with pytest.raises(RuntimeMissing):
        produce_engine(folder, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["build.json", "model.onnx"]


def test_a_model_that_breaks_a_rule_is_refused_before_the_build(tmp_path):
    model = tmp_path / "model.onnx"
    ir.save(linear(scale=0), model)

    with pytest.raises(TargetRefusal) as caught:
        check_model(model, BuildRecipe(), Version(11, 4), (8, 9))

    (refusal,) = {refusal.reason for refusal in caught.value.refusals}
    assert refusal.startswith("scale-not-positive: scale from 0 to 0")


def test_warnings_do_not_stop_a_build(tmp_path):
    model = tmp_path / "model.onnx"
    ir.save(linear(sizes=(8, 64)), model)

    check_model(model, BuildRecipe(refit="any"), Version(10, 12), None)


def test_rules_of_a_version_are_checked_for_that_version(tmp_path):
    model = tmp_path / "model.onnx"
    ir.save(linear(kind="fp8"), model)

    check_model(model, BuildRecipe(), Version(10, 12), (8, 9))
    with pytest.raises(TargetRefusal, match=r"breaks 1 rules of TensorRT 10\.12"):
        check_model(model, BuildRecipe(), Version(10, 12), (8, 6))
