"""`.typing/qdx` shows static checkers the package as it is installed."""

from __future__ import annotations

from tests.layers import ROOT

LINKS = ROOT / ".typing" / "qdx"
PARTS = ("backends", "exporter", "targets")


def expected():
    own = {path.name for path in (ROOT / "qdx").iterdir() if path.name != "__pycache__"}
    return {name: f"../../qdx/{name}" for name in own} | {name: f"../../{name}" for name in PARTS}


def test_every_module_is_linked_and_every_link_is_relative():
    found = {path.name: str(path.readlink()) for path in LINKS.iterdir()}

    assert found == expected(), (
        "a link for each module of qdx/: ln -s ../../qdx/NAME .typing/qdx/NAME"
    )


def test_every_link_leads_somewhere():
    assert all(path.exists() for path in LINKS.iterdir())
