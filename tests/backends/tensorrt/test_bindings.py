"""What qdx names of TensorRT's Python API is what the release has."""

from __future__ import annotations

import ast

import pytest

from tests.support.layers import imports
from tests.support.tensorrt_bindings import (
    FOLDER,
    declared,
    described,
    exported,
    make_bindings,
    run_with,
    signatures,
)
from tests.support.tensorrt_names import GONE_IN_11, NEW_SINCE_10_12

CONSTRUCTED = {"Builder": 1, "OnnxParser": 2, "OnnxParserRefitter": 2, "Refitter": 2, "Runtime": 1}
"""Classes that qdx makes, and with how many arguments."""


DECLARED = declared()
MEMBERS = [(kind, name) for kind, members in DECLARED.items() for name in members]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bindings(tmp_path_factory.mktemp("bindings"))


@pytest.fixture(scope="module")
def real(folder):
    return described(folder)


def test_every_name_of_the_package_exists(real):
    assert exported() - set(real) - {"__version__"} == set()


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_a_member_exists_and_takes_what_it_is_given(real, kind, name):
    documentation = real[kind]["members"].get(name)
    assert documentation is not None, f"{kind} has no {name}"
    parameters = DECLARED[kind][name]
    if parameters is None:
        return
    overloads = signatures(documentation)

    assert any(
        [each for each, _ in overload[: len(parameters)]] == parameters
        and all(default for _, default in overload[len(parameters) :])
        for overload in overloads
    ), overloads


@pytest.mark.parametrize("kind", CONSTRUCTED)
def test_a_constructor_takes_what_it_is_given(real, kind):
    (overload,) = signatures(real[kind]["members"]["__init__"])

    assert len(overload) == CONSTRUCTED[kind]


def test_enumerations_are_enumerations(real):
    of_members = {
        kind: set(members)
        for kind, members in DECLARED.items()
        if members and all(name.isupper() or name == "NONE" for name in members)
    }

    assert len(of_members) >= 8
    assert {k: names - set(real[k]["enumeration"]) for k, names in of_members.items()} == {
        kind: set() for kind in of_members
    }


@pytest.mark.parametrize("ahead", [False, True])
def test_every_use_of_the_package_is_declared(ahead):
    """Modules of what only TensorRT-RTX does have its names beside."""
    used = {
        node.attr
        for path in FOLDER.glob("*.py")
        if path.name.startswith("ahead") == ahead
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "trt"
    }

    assert used
    own = exported("ahead_api.py", "TensorRtRtx") if ahead else set()
    assert used - exported() - own == set()


def test_only_one_module_imports_the_package_and_none_asks_what_it_has():
    for path in FOLDER.rglob("*.py"):
        source = path.read_text()
        assert "tensorrt" not in imports(source)
        assert ("hasattr(" in source, path.name) == (False, path.name)
        assert ("import_module(" in source) == (path.name == "package.py")


@pytest.mark.parametrize("kind", GONE_IN_11)
def test_what_11_has_removed_is_not_used(real, kind):
    gone = set(GONE_IN_11[kind].split())

    assert gone & set(real.get(kind, {"members": {}})["members"]) == set()
    assert gone & set(DECLARED.get(kind, {})) == set()


@pytest.mark.parametrize("kind", NEW_SINCE_10_12)
def test_what_10_12_lacks_is_not_used(real, kind):
    new = set(NEW_SINCE_10_12[kind])

    assert new - set(real[kind]["members"]) == set()
    assert new & set(DECLARED.get(kind, {})) == set()


def test_messages_are_kept_with_their_severity(folder):
    script = """
from qdx.backends.tensorrt.engine.log import Log
from qdx.backends.tensorrt.engine.package import tensorrt
kept = Log()
logger = kept.logger(tensorrt())
for severity in ("VERBOSE", "WARNING", "ERROR"):
    logger.log(getattr(trt.ILogger, severity), severity.lower())
print([(line.severity, line.text) for line in kept.lines], kept.reason())
"""

    assert run_with(folder, script) == "[('WARNING', 'warning'), ('ERROR', 'error')] `error`\n"


@pytest.mark.parametrize("kind", ["Builder", "Runtime"])
def test_a_library_that_finds_no_device_is_a_missing_runtime(folder, kind):
    script = f"""
from qdx.backends.tensorrt.engine.log import Log, started
from qdx.exporter.errors import RuntimeMissing
kept = Log()
try:
    started(trt.{kind}, kept.logger(trt), kept)
except RuntimeMissing as error:
    print(error.message)
"""

    assert run_with(folder, script) == "TensorRT does not start: TensorRT gives no reason\n"


def test_a_version_that_is_too_old_is_named(folder):
    script = """
from qdx.backends.tensorrt.engine.package import tensorrt
from qdx.exporter.errors import RuntimeMissing
trt.__version__ = "10.9.0.34"
try:
    tensorrt()
except RuntimeMissing as error:
    print(error.message)
"""

    expected = "the package tensorrt has version 10.9.0.34, expected >=10.12,<12.0: strong typing is complete from 10.12 on\n"
    assert run_with(folder, script) == expected
