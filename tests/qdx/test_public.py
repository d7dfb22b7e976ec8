"""The public surface: a handful of names, imported late."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import qdx
import qdx.exporter.errors
from tests.support.layers import ROOT


def test_the_names():
    functions = [name for name in qdx.__all__ if name.islower()]

    assert functions == ["__version__", "build", "calibrate", "export", "open", "verify"]
    assert set(qdx.__all__) <= set(dir(qdx))


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
