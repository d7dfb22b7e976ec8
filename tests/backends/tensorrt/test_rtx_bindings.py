"""What qdx names of TensorRT's Python API exists in TensorRT-RTX, which is installed wherever there is a wheel."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.versions import OPERATORS, TRT_OPERATORS
from tests.support.tensorrt_bindings import DUMP, declared, exported, signatures

pytest.importorskip("tensorrt_rtx")

DECLARED = declared(("api.py", "build_api.py", "ahead_api.py"))
NAMES = {"AheadBuilder": "Builder", "AheadBuilderConfig": "IBuilderConfig"}
"""Protocols that add to those of the other flavour, by the class that they are of."""
CALLED_BACK = {"TensorRtRtx", "IStreamWriter"}
"""The names of the package, which are checked apart, and what we define and the builder calls: with its bytes alone,
whatever its documentation says, as each build in these tests shows."""
MEMBERS = [
    (kind, name)
    for kind, members in DECLARED.items()
    for name in members
    if kind not in CALLED_BACK and not name.startswith("__")
]
PRELUDE = "import json\nimport tensorrt_rtx as trt\n"


def printed(script):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def real():
    return printed(DUMP)


def test_every_name_of_the_package_exists(real):
    names = exported() | exported("ahead_api.py", "TensorRtRtx")

    assert names - set(real) - {"__version__"} == set()


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_a_member_exists_and_takes_what_it_is_given(real, kind, name):
    documentation = real[NAMES.get(kind, kind)]["members"].get(name)
    assert documentation is not None, f"{kind} has no {name}"
    parameters = DECLARED[kind][name]
    overloads = signatures(documentation)
    if (
        parameters is None or not overloads
    ):  # of a base class that is written in Python no signature is told
        return

    assert any(
        [each for each, _ in overload[: len(parameters)]] == parameters
        and all(default for _, default in overload[len(parameters) :])
        for overload in overloads
    ), overloads


def test_the_operators_that_it_reads_are_those_of_its_table():
    """Asked of the parser itself: what the table lets pass it reads, and what it is said to lack it does not."""
    version = RTX.supported.lowest
    known = {
        name
        for table in (OPERATORS, TRT_OPERATORS)
        for name, first in table.items()
        if first <= RTX.table_version(version)
    } - RTX.lacks
    script = f"""
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
parser = trt.OnnxParser(builder.create_network(1), logger)
asked = {sorted(known | RTX.lacks)!r}
print(json.dumps([name for name in asked if not parser.supports_operator(name)]))
"""

    assert set(printed(script)) == RTX.lacks
