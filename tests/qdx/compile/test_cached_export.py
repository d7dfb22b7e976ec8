"""What is kept between exports saves time and changes no byte."""

from __future__ import annotations

import shutil

import pytest

from qdx.cache import digests
from qdx.cache.store import user_store
from qdx.exporter.formats import affine as weights
from qdx.exporter.formats import palettes
from tests.support.quantizing import CALL_OPTION, files, plan, run_command, write_plan

MSE = {"weights": {"dtype": "int8", "observer": "mse"}}
STATIC_MSE = {**MSE, "inputs": {"dtype": "int8"}}
PALETTE = {"weights": {"dtype": "palette4", "granularity": "tensor"}}
PALETTE_INT8 = {
    "weights": {"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int8"},
}


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path / "cache"))


def export(model, output, path, target, *extra):
    done = run_command(
        "export", model, "--target", target, "--plan", path, "-o", output, *CALL_OPTION, *extra
    )
    assert done.status == 0, done.err
    assert "cache: " not in done.err
    return files(output)


def forbidden(*_arguments, **_options):
    raise AssertionError("chosen again")


@pytest.mark.parametrize(
    ("target", "scheme", "options"),
    [
        pytest.param("onnxruntime", MSE, {}, marks=pytest.mark.slow),
        ("onnxruntime", STATIC_MSE, {"bias_correction": True, "smoothing": {"alpha": 0.5}}),
        pytest.param("openvino", MSE, {}, marks=pytest.mark.slow),
        ("coreml", PALETTE, {}),
        pytest.param("coreml", PALETTE_INT8, {}, marks=pytest.mark.slow),
    ],
    ids=["mse", "static", "openvino", "palette", "palette of int8"],
)
def test_cold_warm_and_uncached_exports_are_equal_byte_by_byte(
    smallest, tmp_path, monkeypatch, target, scheme, options
):
    if target == "coreml":
        pytest.importorskip("coremltools")
    path = write_plan(tmp_path, plan(scheme, **options))
    plain = export(smallest, tmp_path / "plain", path, target, "--no-cache")
    assert not (tmp_path / "cache").exists()
    cold = export(smallest, tmp_path / "cold", path, target)
    assert {entry.kind for entry in user_store().entries()} >= {"weight-scales"}
    monkeypatch.setattr(weights, "row_qparams", forbidden)
    monkeypatch.setattr(palettes, "row_centres", forbidden)
    warm = export(smallest, tmp_path / "warm", path, target)

    assert plain == cold == warm


@pytest.fixture(scope="module")
def filled(smallest, tmp_path_factory):
    """A cache that one export of `plan(MSE)` has filled, digests of sources too, and what the export made."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QDX_CACHE", str(folder / "cache"))
        patch.setattr(digests, "_SETTLED_NS", -1)
        patch.setattr(digests, "_WORTHWHILE_BYTES", 0)
        made = export(smallest, folder / "cold", write_plan(folder, plan(MSE)), "onnxruntime")
    return folder / "cache", made


@pytest.fixture
def cold(filled, tmp_path):
    """What was made when the cache, of which this test has a copy, was empty."""
    shutil.copytree(filled[0], tmp_path / "cache")
    return filled[1]


def test_a_damaged_cache_changes_no_byte_and_is_said(smallest, tmp_path, cold):
    path = write_plan(tmp_path, plan(MSE))
    spoiled = [entry for entry in user_store().entries() if entry.kind != digests.KIND]
    for entry in spoiled:
        for file in entry.path.glob("*.safetensors"):
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(data)
    done = run_command(
        "export", smallest, "--target", "onnxruntime", "--plan", path, "-o", tmp_path / "x", *CALL_OPTION
    )  # fmt: skip

    assert done.status == 0
    assert done.err.count("a damaged entry was removed") == len(spoiled)
    assert files(tmp_path / "x") == cold


@pytest.mark.usefixtures("cold")
def test_one_changed_weight_is_chosen_again_alone(smallest, tmp_path, monkeypatch):
    """A rule that takes one layer out finds the scales of all others."""
    before = len(user_store().entries())
    value = plan(MSE)
    value["rules"].append(
        {"select": {"component": "unet", "name": "conv_in"}, "weights": {"dtype": "float32"}}
    )
    monkeypatch.setattr(weights, "row_qparams", forbidden)
    export(smallest, tmp_path / "second", write_plan(tmp_path, value), "onnxruntime")

    assert len(user_store().entries()) == before


def test_digests_of_sources_are_kept_and_the_manifest_is_the_same(
    smallest, tmp_path, monkeypatch, cold
):
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)
    monkeypatch.setattr(digests, "_WORTHWHILE_BYTES", 0)
    path = write_plan(tmp_path, plan(MSE))
    monkeypatch.setattr(digests, "sha256_file", forbidden)
    warm = export(smallest, tmp_path / "warm", path, "onnxruntime")

    assert cold["qdx.json"] == warm["qdx.json"]
