"""The public surface: a handful of names, imported late."""

from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
import textwrap
import tomllib

import pytest

import qdx
import qdx.exporter.errors
from tests.support.layers import ROOT

FUNCTIONS = ["build", "calibrate", "export", "open", "verify"]


def test_the_names():
    functions = [name for name in qdx.__all__ if name.islower()]

    assert functions == ["__version__", *FUNCTIONS]
    assert set(qdx.__all__) <= set(dir(qdx))


def test_completion_shows_the_public_names_and_no_others():
    shown = {name for name in dir(qdx) if not name.startswith("__")}

    assert shown == set(qdx.__all__) - {"__version__"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_the_one_that_help_and_signature_describe(name):
    function = getattr(qdx, name)
    described = pydoc.render_doc(function, renderer=pydoc.plaintext)

    assert inspect.isfunction(function)
    assert function.__name__ == function.__qualname__ == name
    assert described.splitlines()[2].startswith(f"{name}(")
    assert " object at 0x" not in described
    assert "Args:" in described


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_a_function_calls_it_as_it_is(name):
    lines = inspect.getdoc(getattr(qdx, name)).split("::\n\n")[1].split("\n\n")[0]
    calls = [
        (node.func.attr, len(node.args), [one.arg for one in node.keywords])
        for node in ast.walk(ast.parse(textwrap.dedent(lines)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("qdx.")
    ]

    assert name in {called for called, _, _ in calls}
    for called, positional, keywords in calls:
        signature = inspect.signature(getattr(qdx, called))
        signature.bind(*[None] * positional, **dict.fromkeys(keywords))


def test_every_public_name_says_what_it_is():
    named = [name for name in qdx.__all__ if name != "__version__"]

    assert [name for name in named if not inspect.getdoc(getattr(qdx, name))] == []


def test_importing_qdx_imports_nothing_heavy():
    code = (
        "import sys; import qdx; "
        "print(sorted({'torch', 'numpy', 'pydantic', 'typer', 'diffusers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'qdx' has no attribute 'exprot'"):
        _ = qdx.exprot


def test_no_module_has_the_name_of_a_function():
    """`qdx.verify` is the function, whatever was imported before."""
    modules = {path.stem for path in (ROOT / "qdx").iterdir()}

    assert modules & set(qdx.__all__) == set()


def test_every_name_leads_to_something():
    assert [name for name in qdx.__all__ if getattr(qdx, name, None) is None] == []


def test_the_whole_tree_of_errors_is_public():
    errors = {
        name
        for name, kind in vars(qdx.exporter.errors).items()
        if isinstance(kind, type) and issubclass(kind, qdx.QdxError)
    }

    assert errors <= set(qdx.__all__)


def test_the_package_is_typed():
    assert (ROOT / "qdx" / "py.typed").exists()


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "version" in project["dynamic"]
    assert (
        f"\n## [{qdx.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
        or "\n## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )
