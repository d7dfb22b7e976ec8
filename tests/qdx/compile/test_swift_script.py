"""The script that makes a bundle's packages ready for the Swift package, with doubles of Apple's tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qdx.targets import load_target
from qdx.targets.layouts import load_layout

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has the tools themselves")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle's outline: what the script reads."""
    folder = tmp_path / "my bundle"
    for name in ("Unet", "TextEncoder"):
        (folder / f"Resources/{name}.mlpackage").mkdir(parents=True)
    (folder / "Resources/vocab.json").write_text("{}")
    (folder / "Resources/merges.txt").write_text("#version: 0.2\n")
    layout = load_layout("swift", load_target("coreml"))
    (folder / "compile.sh").write_text(layout.script_text())
    (folder / "compile.sh").chmod(0o755)
    return folder


def run(bundle: Path, *arguments: str, tools: Path | None = None) -> Any:
    path = os.environ["PATH"] if tools is None else f"{tools}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/sh", str(bundle / "compile.sh"), *arguments],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """An xcrun whose compiler makes a folder."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "xcrun").write_text(
        '#!/bin/sh\n[ "$1" = --find ] && exit 0\n'
        'made="$4/$(basename "$3" .mlpackage).mlmodelc"\nmkdir "$made" && echo x > "$made/x"\n'
    )
    (folder / "xcrun").chmod(0o755)
    return folder


def test_it_makes_the_folder_that_the_package_takes_again_and_again(
    bundle: Path, tools: Path
) -> None:
    before = sorted(bundle.rglob("*"))
    for _ in range(2):
        done = run(bundle, tools=tools)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(path.name for path in Path(f"{bundle}-compiled").iterdir()) == [
            "TextEncoder.mlmodelc",
            "Unet.mlmodelc",
            "merges.txt",
            "vocab.json",
        ]
    assert sorted(bundle.rglob("*")) == before


def test_halves_of_an_earlier_export_are_not_left_to_be_taken_first(
    bundle: Path, tools: Path
) -> None:
    resources, made = bundle / "Resources", Path(f"{bundle}-compiled")

    def models() -> list[str]:
        assert run(bundle, tools=tools).returncode == 0
        return sorted(path.stem for path in made.glob("Unet*.mlmodelc"))

    (resources / "Unet.mlpackage").rename(resources / "UnetChunk1.mlpackage")
    (resources / "UnetChunk2.mlpackage").mkdir()
    assert models() == ["UnetChunk1", "UnetChunk2"]

    (resources / "UnetChunk1.mlpackage").rename(resources / "Unet.mlpackage")
    (resources / "UnetChunk2.mlpackage").rmdir()
    assert models() == ["Unet"]


def test_without_its_tools_it_says_what_to_do(bundle: Path) -> None:
    done = run(bundle)

    assert done.returncode == 1
    assert "run this on a Mac" in done.stderr


def test_the_bundle_itself_is_not_written_into(bundle: Path, tools: Path) -> None:
    done = run(bundle, str(bundle / "Resources"), tools=tools)

    assert done.returncode == 1
    assert "inside the bundle" in done.stderr


def test_checkers_of_shell_scripts_have_nothing_to_say(bundle: Path) -> None:
    script = str(bundle / "compile.sh")
    checkers = [["/bin/sh", "-n"], ["dash", "-n"], ["shellcheck", "--enable=all"]]
    for checker in checkers:
        if shutil.which(checker[0]):
            subprocess.run([*checker, script], check=True)
