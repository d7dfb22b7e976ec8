"""Rules of the house that ruff does not know."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from tests.support.layers import ROOT, source_files

# Names that run code from data, or reach outside; ruff bans imports, this bans calls.
_BANNED_CALLS = frozenset({"eval", "exec", "compile", "__import__", "print", "input", "breakpoint"})
_BANNED_MODULES = frozenset(
    {
        "pickle",
        "dill",
        "marshal",
        "shelve",
        "cloudpickle",
        "joblib",
        "requests",
        "httpx",
        "socket",
        "ftplib",
        "yaml",
    }
)
_BANNED_ATTRIBUTES = frozenset(
    {("torch", "load"), ("torch", "save"), ("os", "system"), ("os", "popen"), ("json", "load")}
)
# The one module that reaches others, where a user names them.
_MAY_IMPORT = {
    "qdx/sweep/ray_address.py": {"socket"},
    # The one module that takes YAML apart, by the parser's events; nothing is constructed.
    "exporter/strict_yaml.py": {"yaml"},
}
# The modules whose whole job is that one call.
_MAY = {"exporter/strict_json.py": {("json", "loads")}}
_ONE_JOB = frozenset({("json", "loads")})
# A folder of a machine: a home, a checkout, a build place.
_MACHINE_PATH = re.compile(
    rb"(?<![A-Za-z0-9._/-])/(?:home|root|Users|work|tmp|mnt|opt|srv)/[A-Za-z0-9]"
)
_SOURCES = [path.relative_to(ROOT).as_posix() for path in source_files()]


def banned(path: str, source: str) -> list[str]:
    """Calls and imports in a module that the house forbids."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _BANNED_CALLS
        ):
            found.append(node.func.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            if pair in _BANNED_ATTRIBUTES or (
                pair in _ONE_JOB and pair not in _MAY.get(path, set())
            ):
                found.append(".".join(pair))
        if isinstance(node, ast.Import):
            found += [
                alias.name
                for alias in node.names
                if alias.name.split(".")[0] in _BANNED_MODULES - _MAY_IMPORT.get(path, set())
            ]
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] in _BANNED_MODULES
        ):
            found.append(node.module)
        if isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "weights_only"}:
            allowed = isinstance(node.value, ast.Constant) and node.value.value is (
                node.arg == "weights_only"
            )
            found += [] if allowed else [node.arg]
    return found


def calling_themselves(source: str) -> list[str]:
    """Functions inside others that name themselves: cycles, which hold all that they see until Python looks for such."""
    return [
        inner.name
        for outer in ast.walk(ast.parse(source))
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.FunctionDef) and inner is not outer
        for node in ast.walk(inner)
        if isinstance(node, ast.Name) and node.id == inner.name
    ]


def test_no_function_inside_another_calls_itself():
    found = {path: calling_themselves((ROOT / path).read_text()) for path in _SOURCES}

    assert {path: names for path, names in found.items() if names} == {}
    assert calling_themselves("def f(x):\n    def g(y):\n        return g(y - x)\n    return g(3)")


@pytest.mark.parametrize("path", _SOURCES)
def test_no_module_runs_code_from_data_or_prints(path):
    assert banned(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "f = torch.save",
        "import json\njson.loads('1')",
        "import os\nos.system('ls')",
        "print('x')",
        "load(trust_remote_code=True)",
        "load(weights_only=False)",
        "import requests.adapters",
    ],
)
def test_a_planted_fault_is_seen(source):
    assert banned("exporter/x.py", source)


def test_the_exception_is_for_its_module_only():
    source = "import json\njson.loads('1')"

    assert banned("exporter/strict_json.py", source) == []
    assert banned("exporter/files.py", source) == ["json.loads"]


@pytest.mark.parametrize("path", _SOURCES)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_text()))


@pytest.mark.parametrize("path", _SOURCES)
def test_no_file_is_longer_than_a_reader_bears(path):
    assert len((ROOT / path).read_text().splitlines()) <= 500


def test_no_tracked_file_names_a_folder_of_a_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tracked = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    files = [path for path in tracked if path.is_file() and path.stat().st_size < 1 << 20]
    found = {
        path.relative_to(ROOT).as_posix(): match.group().decode()
        for path in files
        if (match := _MACHINE_PATH.search(path.read_bytes()))
    }

    assert found == {}


def test_the_search_for_machine_paths_finds_one():
    assert _MACHINE_PATH.search(b"open('" + b"/home" + b"/someone/model')")
