"""The public surface: a handful of names, imported late."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from types import ModuleType

import pytest

import qdx
from tests.layers import ROOT


def test_the_names():
    assert qdx.__all__ == ["__version__", "build", "calibrate", "export", "open", "verify"]
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


def test_a_module_that_shares_its_function_s_name_is_called_like_it(monkeypatch):
    module = ModuleType("qdx.verify")
    module.verify = lambda *given, **options: (given, options)
    monkeypatch.setattr(qdx, "verify", module)

    assert qdx.verify(1, a=2) == ((1,), {"a": 2})
    assert qdx.verify.verify is module.verify


def test_other_modules_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(qdx, "something", ModuleType("qdx.something"), raising=False)

    assert not callable(qdx.something)


def test_open_is_the_runtime_s(monkeypatch):
    runtime = ModuleType("qdx.runtime")
    runtime.open_bundle = object()
    monkeypatch.setitem(sys.modules, "qdx.runtime", runtime)

    assert qdx.open is runtime.open_bundle


def test_the_package_is_typed():
    assert (ROOT / "qdx" / "py.typed").exists()


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "version" in project["dynamic"]
    assert (
        f"\n## [{qdx.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
        or "\n## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )
