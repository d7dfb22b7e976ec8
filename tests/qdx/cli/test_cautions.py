"""Warnings of qdx reach standard error once, also with `--quiet`; those of libraries do not."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

import pytest

from qdx.compile.export import ExportResult
from qdx.exporter.cautions import caution


@pytest.fixture
def export(facades, qdx, monkeypatch, tmp_path):
    """`qdx export` that warns of something twice, and notes it too."""

    def stand_in(*_args, output, **_options):
        caution("done unasked")
        caution("done unasked")
        warnings.warn("a library's own", stacklevel=1)
        return ExportResult(output, ("unet.forward",), 7, {}, (), ("done unasked", "another"))

    module = ModuleType("qdx.compile.export")
    module.export = stand_in
    monkeypatch.setitem(sys.modules, "qdx.compile.export", module)

    def run(*options):
        return qdx("export", "m", "--target", "openvino", "-o", tmp_path / "out", *options)

    return run


def test_a_warning_is_said_once_and_not_again_as_a_note(export):
    done = export()

    assert done.status == 0
    assert done.err.splitlines()[:2] == ["warning: done unasked", "note: another"]
    assert "library" not in done.err


def test_quiet_keeps_warnings(export):
    assert export("--quiet").err == "warning: done unasked\n"


def test_every_command_says_it_anew(export):
    assert export().err == export().err


def test_warnings_of_the_process_are_left_as_they_were(export):
    before = warnings.showwarning, list(warnings.filters)
    export()

    assert (warnings.showwarning, list(warnings.filters)) == before
