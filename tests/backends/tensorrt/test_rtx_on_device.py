"""What only a device can prove of TensorRT-RTX: engines built without one run there, and are what their log says."""

from __future__ import annotations

import importlib
import shutil

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import qdx
from qdx.backends.device_kernels import keeping_kernels
from qdx.backends.site_table import PARTS, SITES
from qdx.backends.tensorrt.engine.audit import audit_engine
from qdx.backends.tensorrt.engine.ep_context import SOURCE, write_context
from qdx.backends.tensorrt.engine.package import compute_capability, device_name, tensorrt
from qdx.backends.tensorrt.engine.produce_ahead import produce_ahead
from qdx.backends.tensorrt.engine.record import LAYERS_NAME, RECORD_NAME, read_record
from qdx.backends.tensorrt.engine.run import TensorRtRunner
from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.recipe import BuildRecipe, InputShapes
from qdx.cache.kernels import KIND, StoredKernels
from qdx.cache.store import Store
from qdx.exporter.errors import InvalidBundle, QdxWarning, RuntimeMissing, UsageError
from qdx.exporter.files import sha256_file
from qdx.targets.compute_capabilities import CLASSES
from tests.support.lint_models import linear
from tests.support.smallest import build_smallest_stable_diffusion

pytestmark = pytest.mark.gpu

RECIPE = {"flavour": "tensorrt-rtx", "versions": ">=1.7,<2"}
MOVING = {"x": InputShapes(min=(1, 32), opt=(16, 32), max=(64, 32))}
CLOSE = {"rtol": 1e-2, "atol": 1e-2}
"""Sixteen-bit products, summed in another order than the processor's."""


@pytest.fixture(autouse=True)
def device():
    """Skips where there is no device that TensorRT-RTX compiles for, and says which there is."""
    try:
        tensorrt(RTX)
        capability = compute_capability()
    except RuntimeMissing as missing:
        pytest.skip(missing.message)
    name = ".".join(map(str, capability))
    if name not in CLASSES:
        pytest.skip(
            f"{device_name()} has compute capability {name}, TensorRT-RTX is for {', '.join(CLASSES)}"
        )
    return capability


def built(folder, *, rows="16", **recipe):
    model = linear(rows=rows, sizes=(32, 64))
    product = next(node.name for node in model.graph if node.op_type == "MatMul")
    model.metadata_props.update({SITES: f'{{"{product}": ["linear"]}}', PARTS: "{}"})
    ir.save(model, folder / "model.onnx")
    (folder / "build.json").write_bytes(BuildRecipe(**RECIPE, **recipe).to_json())
    produce_ahead(folder)
    return folder


def numbers(rows):
    return np.random.default_rng(0).standard_normal((rows, 32)).astype(np.float32)


def expected(folder, x):
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("graph", ["on", "off"])
@pytest.mark.parametrize("when", ["eager", "lazy", "none"])
def test_an_engine_gives_the_numbers_of_the_file_again_and_again(tmp_path, graph, when):
    folder = built(tmp_path)
    runner = TensorRtRunner(folder, {"cuda_graph": graph, "kernel_specialization": when})

    for seed in range(4):
        x = numbers(16) + seed
        np.testing.assert_allclose(runner({"x": x})["y"], expected(folder, x), **CLOSE)


@pytest.mark.parametrize("graph", ["on", "off"])
def test_open_sizes_move_within_the_profile(tmp_path, graph):
    folder = built(tmp_path, rows="rows", profiles=(MOVING,))
    runner = TensorRtRunner(folder, {"cuda_graph": graph})

    for rows in (1, 64, 16, 16, 1):
        x = numbers(rows)
        np.testing.assert_allclose(runner({"x": x})["y"], expected(folder, x), **CLOSE)
    with pytest.raises(UsageError, match="no profile holds"):
        runner({"x": numbers(65)})


def test_kernels_that_were_compiled_once_are_found_by_the_next_runner(tmp_path):
    (tmp_path / "model").mkdir()
    folder, store = built(tmp_path / "model"), Store(tmp_path / "cache")
    x = numbers(16)
    found = []
    for _ in range(2):
        with keeping_kernels(StoredKernels(lambda: store)):
            runner = TensorRtRunner(folder, {})
        found.append(runner({"x": x})["y"])
        entries = [one for one in store.entries() if one.kind == KIND]
        assert len(entries) == 1

    np.testing.assert_array_equal(*found)


def test_kernels_that_are_refused_are_compiled_anew_and_that_is_said(tmp_path):
    class Damaged:
        def recall(self, parts):
            return b"no kernels"

        def keep(self, parts, data):
            raise AssertionError("what is kept already stays")

    folder = built(tmp_path)
    with keeping_kernels(Damaged()):
        runner = TensorRtRunner(folder, {})
    with pytest.warns(QdxWarning, match="compiles them anew"):
        found = runner({"x": numbers(16)})["y"]

    np.testing.assert_allclose(found, expected(folder, numbers(16)), **CLOSE)


def test_the_engine_on_the_device_is_what_the_log_of_its_build_says(tmp_path):
    folder = built(tmp_path)
    executed = audit_engine(folder, {})

    assert "int8" in {each.precision for each in executed}
    assert {each.compiled for each in executed if each.sites} == {"native"}
    assert sum(each.time_share for each in executed) == pytest.approx(1)


def test_an_engine_that_is_not_what_its_log_says_is_an_error(tmp_path):
    folder = built(tmp_path)
    log, record = folder / LAYERS_NAME, read_record(folder)
    log.write_text(log.read_text().replace("Datatype: Int8", "Datatype: Half"))
    altered = record.model_copy(update={"layers_sha256": sha256_file(log, error=InvalidBundle)})
    (folder / RECORD_NAME).write_bytes(altered.to_json())

    with pytest.raises(InvalidBundle, match="the engine on this device is not what the log says"):
        audit_engine(folder, {})


def test_an_engine_for_another_generation_is_refused_with_the_reason(tmp_path, device):
    other = "12.0" if device < (12, 0) else "8.9"
    folder = built(tmp_path, compute_capabilities=(other,))

    with pytest.raises(RuntimeMissing, match="compute capability"):
        TensorRtRunner(folder, {})


@pytest.mark.slow
def test_a_pipeline_is_verified_and_measured_on_the_device(tmp_path):
    model, output = build_smallest_stable_diffusion(tmp_path / "model"), tmp_path / "bundle"
    call = {"num_inference_steps": 2, "height": 16, "width": 16}
    qdx.export(
        model, target="tensorrt-rtx", plan="w8a8", output=output, call=call, prompts=["a dog"]
    )
    report = qdx.verify(output, model=model)

    assert report.proof.status == "device-verified"
    assert "TensorRT-RTX" in report.proof.executed_by
    lowering = [gate for gate in report.gates if "lowering" in gate.name]
    assert lowering
    assert [gate for gate in lowering if not gate.ok] == []
    timed = qdx.bench([f"rtx={output}"], rounds=3)
    assert timed.timings


def test_onnx_runtime_s_provider_opens_the_model_that_stands_for_an_engine(tmp_path):
    """The plugin is NVIDIA's own package, with a TensorRT-RTX of its own inside."""
    try:
        plugin = importlib.import_module("onnxruntime_ep_nv_tensorrt_rtx")
    except ImportError:
        pytest.skip("not installed: pip install onnxruntime-ep-nv-tensorrt-rtx-cu13")
    folder = built(tmp_path)
    for name in ("model.onnx", "model.onnx_data"):
        if (folder / name).exists():
            shutil.move(folder / name, folder / name.replace("model", "model.qdq"))
    recipe = BuildRecipe(**RECIPE, model="model.qdq.onnx", context="model.onnx")
    write_context(folder, read_record(folder).model_copy(update={"recipe": recipe}))

    onnxruntime.register_execution_provider_library(SOURCE, plugin.get_library_path())
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == SOURCE]
    options = onnxruntime.SessionOptions()
    options.add_provider_for_devices(devices[:1], {})
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    x = numbers(16)
    reference = onnxruntime.InferenceSession(
        str(folder / "model.qdq.onnx"), providers=["CPUExecutionProvider"]
    )

    np.testing.assert_allclose(
        session.run(None, {"x": x})[0], reference.run(None, {"x": x})[0], **CLOSE
    )
