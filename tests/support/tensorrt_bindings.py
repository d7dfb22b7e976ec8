"""TensorRT's real Python bindings on a machine without its libraries: stand-ins export the symbols, and do nothing.

Classes, methods, enumerations and signatures are then those of the release. Nothing can be built or run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.layers import ROOT

DISTRIBUTION = "tensorrt_cu13_bindings==11.4.0.106"
PACKAGE = "tensorrt_bindings"
LIBRARIES = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}
"""What the bindings import of each library."""
RTX_PACKAGE = "tensorrt_rtx"
"""Its wheels bring the libraries: what is asked of it is asked of TensorRT-RTX itself."""
PRELUDE = "import sys, json\nimport tensorrt_bindings as trt\nsys.modules['tensorrt'] = trt\n"
RTX_PRELUDE = "import sys, json\nimport tensorrt_rtx as trt\n"
DUMP = """
found = {}
for name, kind in vars(trt).items():
    if isinstance(kind, type):
        members = {each: getattr(kind, each).__doc__ or "" for each in dir(kind)}
        found[name] = {"members": members, "enumeration": sorted(getattr(kind, "__members__", {}))}
    elif not name.startswith("_"):
        found[name] = {"members": {}, "enumeration": []}
print(json.dumps(found))
"""


def make_bindings(folder: Path) -> Path:
    """Copies the installed bindings and puts stand-ins beside them; returns the folder to import from."""
    spec = importlib.util.find_spec(PACKAGE)  # finds it without importing it
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{PACKAGE} is not installed: pip install --no-deps {DISTRIBUTION}")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for Linux")
    shutil.copytree(spec.submodule_search_locations[0], folder / PACKAGE)
    for library, symbols in LIBRARIES.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols))
        name = f"lib{library}.so.11"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / PACKAGE / name), str(source)]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return folder


def run_with(folder: Path, script: str) -> str:
    """Runs a script in a process that has the bindings as `tensorrt`; returns what it prints."""
    return _printed(PRELUDE + script, f"{folder}{os.pathsep}{ROOT}")


def run_with_rtx(script: str) -> str:
    """Runs a script in a process that has TensorRT-RTX as `trt`; returns what it prints."""
    if importlib.util.find_spec(RTX_PACKAGE) is None:
        pytest.skip(f"{RTX_PACKAGE} is not installed: pip install 'qdx[tensorrt-rtx]'")
    return _printed(RTX_PRELUDE + script, str(ROOT))


def _printed(script: str, path: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def described(folder: Path) -> dict[str, dict[str, object]]:
    """Every class of the bindings with its members and their documentation."""
    return json.loads(run_with(folder, DUMP))


def rtx_described() -> dict[str, dict[str, object]]:
    """The same of TensorRT-RTX."""
    return json.loads(run_with_rtx(DUMP))


def signatures(documentation: str) -> list[list[tuple[str, bool]]]:
    """Parameters of each overload, without `self`: the name, and whether it has a default.

    >>> signatures("f(self: A, x: int, y: list[B] = None) -> C")
    [[('x', False), ('y', True)]]
    """
    found = []
    for line in documentation.splitlines():
        text = line.split(". ", 1)[1] if line[:1].isdigit() and ". " in line else line
        if "(self: " not in text or ") -> " not in text:
            continue
        inner = text[text.index("(") + 1 : text.rindex(") -> ")]
        parts = _split(inner)[1:]
        found.append([(part.split(":")[0].strip(), "=" in part) for part in parts])
    return found


def _split(text: str) -> list[str]:
    """Splits at commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
