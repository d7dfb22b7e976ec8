"""The README's tables and commands are those of the tree."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from qdx.exporter.errors import QdxError, StorageError, TargetRefusal, UsageError
from qdx.exporter.plan import parse_plan
from tests.support.layers import PARTS, ROOT

README = (ROOT / "README.md").read_text()


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def other_folders():
    """Top-level folders of the repository that are no part of the package."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        return {"samples", "tests"}
    tops = {name.split("/")[0] for name in listed.stdout.splitlines() if "/" in name}
    return {top for top in tops if not top.startswith(".")} - set(PARTS)


def test_the_code_map_lists_the_folders_of_the_tree():
    listed = re.findall(r"^\| `([^`]+)/` \|", section("Code map"), re.MULTILINE)
    packages = {
        path.parent.relative_to(ROOT).as_posix()
        for part in PARTS
        for path in (ROOT / part).rglob("__init__.py")
    }

    assert sorted(listed) == sorted(packages | other_folders())


def test_readme_opens_with_the_two_commands():
    lines = [line.split("#")[0].strip() for line in README.splitlines()[1:5] if line.strip()]

    assert lines == ["make demo", "make test"]


def test_every_make_command_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"make (demo|test-all|test|lint|interop|clean)", README)) <= targets


def test_the_plan_shown_is_a_plan():
    (text,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)

    assert parse_plan(text, source="README.md").to_json() == json.loads(text)


def test_the_exit_statuses_are_those_of_the_errors():
    listed = {
        int(number)
        for number in re.findall(r"^\| (\d+) \|", section("Exit statuses"), re.MULTILINE)
    }

    assert {
        kind.exit_code for kind in (QdxError, StorageError, TargetRefusal, UsageError)
    } <= listed
    assert {0, 1, 130} <= listed


@pytest.mark.parametrize(
    "line", [line.strip() for line in README.splitlines() if line.startswith("    qdx ")]
)
def test_every_command_shown_is_one(qdx_commands, line):
    words = line.split()[1:3]
    command = " ".join(words) if words[0] == "plan" else words[0]
    assert command in qdx_commands
    options = re.findall(r"(?<= )--?[a-z-]+", line.split("  ")[0])

    assert [option for option in options if option not in qdx_commands[command]] == []


@pytest.fixture(scope="module")
def qdx_commands():
    """Help text by command."""
    from typer.testing import CliRunner

    from qdx.cli.main import app

    run = CliRunner().invoke

    def helps(*group):
        listed = run(app, [*group, "--help"]).output.split("Commands:")[1]
        names = re.findall(r"^  ([a-z]+)  ", listed, re.MULTILINE)
        return {
            " ".join([*group, name]): run(app, [*group, name, "--help"]).output for name in names
        }

    return {**helps(), **helps("plan")}
