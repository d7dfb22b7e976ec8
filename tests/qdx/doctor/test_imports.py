"""Packages that work, that raise, that end the process, and that never come back."""

from __future__ import annotations

import pytest

from qdx.doctor.imports import Import, import_all


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes packages that a process started from here imports."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    return make


def test_each_package_is_told_of_whatever_the_others_do(package):
    package("raising", "import no_such_module")
    package("leaving", "raise SystemExit(3)")
    package("printing", "print('{', flush=True)")
    package("crashing", "import os, sys; sys.stderr.write('libx: bad\\n'); sys.stderr.flush(); os.kill(os.getpid(), 11)")  # fmt: skip
    package("quitting", "import os; os._exit(7)")
    told = []
    names = ["raising", "leaving", "printing", "crashing", "quitting", "packaging"]
    found = import_all(None, names, lambda: told.append(1))

    assert found == {
        "raising": Import("ModuleNotFoundError: No module named 'no_such_module'"),
        "leaving": Import("SystemExit: 3"),
        "printing": Import(),
        "crashing": Import("the process that imports it was ended by signal 11: libx: bad"),
        "quitting": Import("the process that imports it left with status 7"),
        "packaging": Import(),
    }
    assert len(told) == len(names)


def test_an_import_that_does_not_end_is_given_up(package):
    package("waiting", "import time; time.sleep(60)")

    fault = import_all(None, ["waiting"], lambda: None, seconds=0.5)["waiting"].fault

    assert fault == "the process that imports it did not end within 0.5 s"


def test_runtimes_tell_what_this_machine_computes():
    found = import_all("onnxruntime", ["onnxruntime"], lambda: None)["onnxruntime"]

    assert found.fault == ""
    assert isinstance(found.facts["saturates"], bool)
