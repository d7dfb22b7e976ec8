"""A package beside qdx that brings a runtime: its entry point is found as that of an installed one, its target by file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qdx.targets import profile

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The name of the toy's target."""
    folder = tmp_path_factory.mktemp("targets")
    for path in (*profile._FOLDER.glob("*.toml"), HERE / "toy_runtime" / "toy.toml"):
        shutil.copy(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE / "installed")
        patch.setattr(profile, "_FOLDER", folder)  # until `--target` takes a file of the user's
        yield "toy"
