"""What is installed is what the tree holds."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.support.layers import PARTS, ROOT

CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATA = {".css", ".py", ".toml", ".json", ".sh", ".typed"}


def package_of(folder):
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "qdx" else ("qdx", *parts))


def files_of_the_tree():
    """Path in the wheel by path in the tree."""
    found = {}
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and path.suffix in DATA and "__pycache__" not in path.parts:
                relative = path.relative_to(ROOT).as_posix()
                found[relative if part == "qdx" else f"qdx/{relative}"] = path
    return found


def test_every_package_is_listed():
    listed = CONFIGURATION["tool"]["setuptools"]["packages"]
    in_tree = sorted(
        {package_of(path.parent) for part in PARTS for path in (ROOT / part).rglob("*.py")}
    )

    assert listed == in_tree


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for part in PARTS for path in (ROOT / part).rglob("*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_extra_all_holds_what_installs_without_a_gpu():
    extras = CONFIGURATION["project"]["optional-dependencies"]

    assert extras["all"] == ["qdx[onnxruntime,openvino,coreml,tensorrt-rtx]"]


@pytest.mark.parametrize("runtime", ["coreml", "onnxruntime", "openvino", "tensorrt"])
def test_an_extra_brings_what_the_modules_of_its_runtime_import(runtime):
    """Those of the ONNX format run files in ONNX Runtime, for TensorRT where no engine is built."""
    extras = CONFIGURATION["project"]["optional-dependencies"]
    needed = [*CONFIGURATION["project"]["dependencies"], *extras[runtime]]
    brought = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in needed}
    folders = [ROOT / "backends" / runtime]
    if runtime in {"onnxruntime", "tensorrt"}:
        folders.append(ROOT / "backends" / "onnx")
    modules = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    imported = {name.partition(".")[0] for module in modules for name in _imports(module)}
    # What torch, onnx and pydantic bring of their own.
    known = {"google", "ml_dtypes", "pydantic_core", "sympy", "qdx", *sys.stdlib_module_names}

    assert imported - known - brought == set()


def _imports(module):
    for node in ast.walk(ast.parse(module)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__")
    for part in (*PARTS, "install"):
        shutil.copytree(ROOT / part, source / part, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps",
               "--no-index", "--wheel-dir", str(out), str(source)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    (path,) = out.iterdir()
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_tree_and_nothing_else(wheel):
    packaged = {name for name in wheel if ".dist-info/" not in name}

    assert packaged == set(files_of_the_tree())


def test_the_wheel_s_files_are_the_tree_s(wheel):
    assert all(wheel[name] == path.read_bytes() for name, path in files_of_the_tree().items())


def test_the_wheel_brings_its_licence_and_its_command(wheel):
    names = set(wheel)
    (folder,) = {name.split("/")[0] for name in names if ".dist-info/" in name}

    assert f"{folder}/licenses/LICENSE" in names
    assert b"qdx = qdx.cli.main:main" in wheel[f"{folder}/entry_points.txt"]
