"""TensorRT's real Python bindings on a machine without its libraries: stand-ins export the symbols, and do nothing.

Classes, methods, enumerations and signatures are then those of the release. Nothing can be built or run.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.layers import ROOT

FOLDER = ROOT / "backends" / "tensorrt" / "engine"
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
PRELUDE = "import sys, json\nimport tensorrt_bindings as trt\nsys.modules['tensorrt'] = trt\n"
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


def declared(modules=("api.py", "build_api.py")):
    """Classes of the two modules of types, by name: members, and parameters of methods."""
    found = {}
    for module in modules:
        for node in ast.parse((FOLDER / module).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name != "Member":
                found[node.name] = dict(map(member, node.body[1:]))
    return found


def member(node):
    """Name of a member, and its parameters where it is called."""
    if isinstance(node, ast.AnnAssign):
        return node.target.id, None
    is_property = any(getattr(each, "id", "") == "property" for each in node.decorator_list)
    return node.name, None if is_property else [each.arg for each in node.args.args[1:]]


def exported(module="package.py", protocol="TensorRt"):
    """Names of the package that qdx declares."""
    tree = ast.parse((FOLDER / module).read_text())
    (kind,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == protocol]
    return {node.target.id for node in kind.body if isinstance(node, ast.AnnAssign)}


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
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def described(folder: Path) -> dict[str, dict[str, object]]:
    """Every class of the bindings with its members and their documentation."""
    return json.loads(run_with(folder, DUMP))


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
