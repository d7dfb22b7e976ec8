"""Help in sections: groups, an example of each command, exit statuses; and the examples do what they say."""

from __future__ import annotations

import re

import pytest

from qdx.cli.help_words import COMMAND_GROUPS, EXAMPLES, OPTION_GROUPS, STATUSES, STATUSES_OF
from tests.support.command_lines import parse, run_line
from tests.support.command_names import COMMANDS
from tests.support.layers import ROOT

HEAVY = {
    *("", "export", "calibrate", "analyze", "run", "verify", "bench", "plan show", "doctor"),
    "plan search",
    *("report", "report show", "report diff", "report index"),
}
"""Examples that compute, or need what others have written."""
ON_A_GPU = {"build"}


def sections(text):
    """The lines of each section of a help text, by its title."""
    found, title = {}, ""
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][a-z ]+:", line):
            title = line.rstrip(":")
        elif line.startswith("  "):
            found.setdefault(title, []).append(line)
    return found


def first_words(lines):
    return [line.split()[0] for line in lines if re.match(r"  \S", line)]


def test_commands_stand_in_groups(qdx):
    found = sections(qdx("--help").out)

    assert {title: tuple(first_words(found[title])) for title in COMMAND_GROUPS} == COMMAND_GROUPS
    assert "Commands" not in found


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_and_its_exit_statuses(qdx, command):
    found = sections(qdx(*command, "--help").out)
    name = " ".join(command)
    examples = found.get("Example") or found["Examples"]

    assert tuple(line.strip() for line in examples) == EXAMPLES[name]
    assert {"0", "2"} - {*first_words(found["Exit status"])} <= (
        {"2"} if name == "doctor" else set()
    )


def test_exit_statuses_have_words(qdx):
    lines = sections(qdx("--help").out)["Exit status"]

    assert [" ".join(line.split()) for line in lines] == [f"{n} {w}" for n, w in STATUSES.items()]
    assert sections(qdx("verify", "--help").out)["Exit status"][1].split(maxsplit=1) == ["1", STATUSES["1"]]  # fmt: skip


def test_options_stand_in_groups(qdx):
    found = sections(qdx("export", "--help").out)

    assert [title for title in found if title in OPTION_GROUPS] == [*OPTION_GROUPS]
    assert first_words(found["Input"])[:2] == ["--target", "--plan"]
    assert "--components" in first_words(found["What is computed"])
    assert first_words(found["General"])[-1] == "-h,"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_one_group(qdx, command):
    found = sections(qdx(*command, "--help").out)
    options = [one for title in OPTION_GROUPS for one in first_words(found.get(title, []))]

    assert len(options) == len(set(options))
    assert "-h," in options


def test_what_the_tables_name_is_there():
    names = {" ".join(command) for command in COMMANDS}

    assert {*EXAMPLES} == names
    assert STATUSES_OF.keys() <= names


def test_statuses_are_those_of_the_page():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs/exit-statuses.md").read_text(), re.MULTILINE)  # fmt: skip

    assert dict(rows) == STATUSES


LINES = [(name, line) for name, lines in EXAMPLES.items() for line in lines]


@pytest.mark.parametrize("line", dict.fromkeys(line for _, line in LINES))
def test_examples_can_be_read(line):
    parse(line)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)


def run(lines):
    """Runs each line once, and returns the statuses of those that failed."""
    return {line: status for line in dict.fromkeys(lines) if (status := run_line(line))}


def test_examples_that_compute_nothing_work(folder):
    assert run(line for name, line in LINES if name not in HEAVY | ON_A_GPU) == {}


@pytest.mark.slow
def test_all_examples_work_one_after_the_other(folder):
    assert run(line for name, line in LINES if name not in ON_A_GPU) == {}
