"""What qdx names of TensorRT's Python API is what the release has."""

from __future__ import annotations

import ast

import pytest

from tests.support.layers import ROOT, imports
from tests.support.tensorrt_bindings import (
    described,
    make_bindings,
    rtx_described,
    run_with,
    signatures,
)
from tests.support.tensorrt_names import GONE_IN_11, NEW_SINCE_10_12

FOLDER = ROOT / "backends" / "tensorrt" / "engine"
CONSTRUCTED = {"Builder": 1, "OnnxParser": 2, "OnnxParserRefitter": 2, "Refitter": 2, "Runtime": 1}
"""Classes that qdx makes, and with how many arguments."""


OF_BOTH = ("api.py", "build_api.py")
"""Modules of types that both flavours have."""
OF_RTX = ("ahead_api.py", "rtx_api.py")
"""Modules of types that TensorRT-RTX alone has."""
PACKAGES = ("TensorRt", "TensorRtRtx", "RtxPackage")
"""Classes that list what a package exports."""
DERIVED = {("IStreamWriter", "write")}
"""What a class of qdx's own defines, and is called with bytes for the pair that the base class takes."""
OTHERWISE = {"AheadBuilder": "Builder", "AheadBuilderConfig": "IBuilderConfig"}
"""Names of classes that qdx names otherwise, beside those of TensorRT."""


def declared(modules):
    """Classes of modules of types, by name: members, and parameters of methods."""
    found = {}
    for module in modules:
        for node in ast.parse((FOLDER / module).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name not in {"Member", *PACKAGES}:
                name = OTHERWISE.get(node.name, node.name)
                found[name] = dict(map(member, node.body[1:]))
    return found


def member(node):
    """Name of a member, and its parameters where it is called."""
    if isinstance(node, ast.AnnAssign):
        return node.target.id, None
    is_property = any(getattr(each, "id", "") == "property" for each in node.decorator_list)
    return node.name, None if is_property else [each.arg for each in node.args.args[1:]]


def exported(package="TensorRt"):
    """Names of a package that qdx declares."""
    bodies = [n for path in FOLDER.glob("*.py") for n in ast.parse(path.read_text()).body]
    (kind,) = [n for n in bodies if isinstance(n, ast.ClassDef) and n.name == package]
    return {node.target.id for node in kind.body if isinstance(node, ast.AnnAssign)}


DECLARED, RTX_DECLARED = declared(OF_BOTH), declared(OF_RTX)
MEMBERS = [(kind, name) for kind, members in DECLARED.items() for name in members]
RTX_MEMBERS = [(kind, name) for kind, members in RTX_DECLARED.items() for name in members]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bindings(tmp_path_factory.mktemp("bindings"))


@pytest.fixture(scope="module")
def enterprise(folder):
    return described(folder)


@pytest.fixture(scope="module")
def rtx():
    return rtx_described()


@pytest.fixture(params=["enterprise", "rtx"])
def real(request):
    """The bindings of one flavour."""
    return request.getfixturevalue(request.param)


def test_every_name_of_the_package_exists(real):
    assert exported() - set(real) - {"__version__"} == set()


def test_every_name_of_the_other_package_exists_there_alone(enterprise, rtx):
    names = exported("RtxPackage") | exported("TensorRtRtx")

    assert names
    assert names - set(rtx) == set()
    # What both have, and only engines that are built ahead of time use.
    assert names & set(enterprise) <= {"Builder", "IStreamWriter"}


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_a_member_exists_and_takes_what_it_is_given(real, kind, name):
    check_member(real, kind, name, DECLARED[kind][name])


@pytest.mark.parametrize(("kind", "name"), RTX_MEMBERS)
def test_a_member_of_tensorrt_rtx_exists_and_takes_what_it_is_given(rtx, kind, name):
    parameters = None if (kind, name) in DERIVED else RTX_DECLARED[kind][name]
    check_member(rtx, kind, name, parameters)


def test_what_is_declared_of_tensorrt_rtx_alone_is_not_in_tensorrt(enterprise):
    """What both have is declared for both; but what newer ones than 10.12 have, or one of them alone needs."""
    both = {
        (kind, name)
        for kind, name in RTX_MEMBERS
        if name in enterprise.get(kind, {"members": {}})["members"]
    }

    assert both <= {
        ("ICudaEngine", "create_runtime_config"),
        ("ICudaEngine", "create_execution_context"),
        ("IStreamWriter", "write"),
        ("Builder", "create_builder_config"),
        ("Builder", "build_serialized_network_to_stream"),
    }


def test_a_member_that_is_missing_or_takes_other_parameters_is_found(rtx):
    with pytest.raises(AssertionError, match="IRuntimeCache has no shrink"):
        check_member(rtx, "IRuntimeCache", "shrink", [])
    with pytest.raises(AssertionError):
        check_member(rtx, "IRuntimeCache", "deserialize", ["data"])


def check_member(real, kind, name, parameters):
    """Holds one member to the bindings."""
    documentation = real[kind]["members"].get(name)
    assert documentation is not None, f"{kind} has no {name}"
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
        if members and all(name.isupper() for name in members)
    }

    assert len(of_members) >= 8
    assert {k: names - set(real[k]["enumeration"]) for k, names in of_members.items()} == {
        kind: set() for kind in of_members
    }


def test_enumerations_of_tensorrt_rtx_are_enumerations_and_known_whole(rtx):
    of_members = {
        kind: set(members)
        for kind, members in RTX_DECLARED.items()
        if members and all(name.isupper() for name in members)
    }

    assert len(of_members) >= 4
    for kind, names in of_members.items():
        assert names <= set(rtx[kind]["enumeration"]), kind
    # A diagnosis without words would be a refusal without a reason.
    for kind in ("EngineInvalidityDiagnostics", "EngineValidity"):
        assert of_members[kind] == set(rtx[kind]["enumeration"])


@pytest.mark.parametrize(
    ("files", "holder", "packages"),
    [
        ("[!a]*.py", "trt", ["TensorRt"]),
        ("a*.py", "trt", ["TensorRt", "TensorRtRtx"]),
        ("*.py", "package", ["RtxPackage"]),
    ],
)
def test_every_use_of_the_package_is_declared(files, holder, packages):
    used = {
        node.attr
        for path in FOLDER.glob(files)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == holder
    }

    assert used - {"__version__"}
    assert used - {"__version__"}.union(*map(exported, packages)) == set()


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
def test_what_10_12_lacks_is_not_used(enterprise, kind):
    new = set(NEW_SINCE_10_12[kind])

    assert new - set(enterprise[kind]["members"]) == set()
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
