"""Commands and snippets that README and the pages show are run as they stand."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from qdx.cli.main import run_command
from tests.support import tiny
from tests.support.doc_blocks import Block, blocks_of, command_of, pages
from tests.support.doc_commands import parse_words
from tests.support.layers import ROOT
from tests.support.smallest import build_smallest_text_to_image

BLOCKS = [(page, block) for page in pages() for block in blocks_of((ROOT / page).read_text())]
COMMANDS = [
    pytest.param(line, id=f"{page}:{block.line}: {line}")
    for page, block in BLOCKS
    if block.language == "sh"
    for line in block.commands
]
FIRST = {"README.md", "docs/plans.md"}
"""Pages whose commands every run of the tests runs; the others run with the slow tests."""
RUN = sorted({page for page, block in BLOCKS if block.language in {"sh", "python"}})


def parse(line):
    """Reads a command of `qdx` as its command line does, and runs nothing."""
    words, _ = command_of(line)
    if words[0].endswith("pytest"):
        path, _, name = words[1].partition("::")
        assert (ROOT / path).exists(), f"{path} is not there"
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{name} is not in {path}"
    if words[0] != "qdx":
        return
    parse_words(words[1:])


def run(block, namespace):
    """Runs a block in the current folder; programs other than qdx are left out.

    Raises:
        AssertionError: A command ends with another status than 0.
    """
    if block.language == "python":
        exec(compile(block.text, f"line {block.line}", "exec"), namespace)
        return
    for line in block.commands if block.language == "sh" else ():
        words, output = command_of(line)
        if words[0] == "mkdir":
            Path(words[-1]).mkdir(parents=True, exist_ok=True)
        elif words[0] == "qdx":
            written = io.StringIO()
            with (
                contextlib.nullcontext() if output is None else contextlib.redirect_stdout(written)
            ):
                status = run_command(words[1:])
            assert status == 0, f"line {block.line}: {line}: exit status {status}"
            if output is not None:
                output.write_text(written.getvalue())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest_text_to_image(tmp_path_factory.mktemp("model") / "smallest")


@pytest.fixture
def folder(tmp_path, model, monkeypatch):
    """A folder with what pages take for given: a model, prompts and the samples."""
    (tmp_path / "MODEL").symlink_to(model)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(page, marks):
    namespace, blocks = {}, blocks_of((ROOT / page).read_text())
    chosen = [block for block in blocks if block.mark in marks]
    if any("STABLE_DIFFUSION" in block.text for block in chosen):
        tiny.build("sd", Path("STABLE_DIFFUSION"))
    for block in chosen:
        run(block, namespace)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_exists(line):
    parse(line)


@pytest.mark.parametrize(
    "page",
    [page if page in FIRST else pytest.param(page, marks=pytest.mark.slow) for page in RUN],
)
def test_a_page_runs_as_it_stands(folder, page):
    run_page(page, {""})


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, block in BLOCKS if block.mark == "slow"}))
def test_a_page_runs_with_its_slow_blocks(folder, page):
    run_page(page, {"", "slow"})


def test_no_command_escapes_the_checks():
    """Commands stand in fences with a language: an indented block is not looked at."""
    stray = [
        f"{page}: {line}"
        for page in pages()
        for line in (ROOT / page).read_text().splitlines()
        if line.startswith(("    qdx ", "    pip ", "\tqdx ", "$ qdx "))
    ]

    assert stray == []
    assert len([block for _, block in BLOCKS if block.language == "python" and not block.mark]) >= 4
    assert len(COMMANDS) >= 40


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("qdx export MODEL --target openvino --precision w8 -o out", "--precision"),
        ("qdx plan draw w8", "draw"),
        ("qdx export MODEL -o out", "target"),
        ("qdx verify out --model MODEL --seeds none", "valid integer"),
        ("wget MODEL", "wget"),
        (".venv-test/bin/pytest tests/test_nothing.py", "test_nothing.py"),
        (".venv-test/bin/pytest tests/test_style.py::test_nothing", "test_nothing"),
    ],
)
def test_a_wrong_command_is_seen(line, fault):
    with pytest.raises(Exception, match=fault):
        parse(line)


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (Block("sh", "qdx inspect no-such-folder\n", 1), "exit status 2"),
        (Block("sh", "qdx plan check w8 --model MODEL --target nowhere\n", 1), "exit status 2"),
        (Block("python", "import qdx\nqdx.no_such_name\n", 1), "no_such_name"),
    ],
)
def test_a_block_that_fails_is_seen(folder, block, fault):
    with pytest.raises((AssertionError, AttributeError), match=fault):
        run(block, {})


def test_a_comment_without_meaning_is_seen():
    with pytest.raises(ValueError, match="slowly"):
        blocks_of("<!-- slowly: it takes long -->\n```sh\nqdx targets\n```\n")
