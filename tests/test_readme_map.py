"""The tables of the README and the pages are those of the tree."""

from __future__ import annotations

import json
import re
import subprocess

from qdx.exporter.errors import QdxError
from qdx.exporter.plan import list_presets, parse_plan
from qdx.targets import list_targets
from tests.support.doc_blocks import blocks_of, pages
from tests.support.layers import PARTS, ROOT

README = (ROOT / "README.md").read_text()
EXIT_STATUSES = (ROOT / "docs" / "exit-statuses.md").read_text()


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


def test_a_newcomer_reads_the_readme_in_one_sitting():
    assert len(README.splitlines()) <= 170


def test_the_presets_listed_are_at_most_those_there_are():
    rows = re.findall(r"^\| (`.+?) \|", section("Presets"), re.MULTILINE)
    listed = re.findall(r"`(\w+)`", " ".join(rows))

    assert len(listed) == len(set(listed)) >= 11
    assert set(listed) <= set(list_presets())


def test_every_target_is_listed():
    rows = section("Targets")
    short = re.sub(r"`(-\w+)`", r"`tensorrt\1`", rows)

    assert set(re.findall(r"`([a-z0-9-]+)`", short)) == set(list_targets())


def test_every_make_command_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        f"{page}: make {name}"
        for page in pages()
        for name in re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
    }

    assert len(shown) >= 10
    assert {one for one in shown if one.split()[-1] not in targets} == set()


def test_every_plan_shown_is_a_plan():
    plans = [
        block.text
        for page in pages()
        for block in blocks_of((ROOT / page).read_text())
        if block.language == "json"
    ]

    assert plans
    for text in plans:
        assert parse_plan(text, source="a page").to_json() == json.loads(text)


def test_the_exit_statuses_are_those_of_the_errors():
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", EXIT_STATUSES, re.MULTILINE)}

    assert {kind.exit_code for kind in errors()} <= listed
    assert {0, 1, 130} <= listed


def errors(base=QdxError):
    """An error and all that derive from it."""
    return {base, *(one for child in base.__subclasses__() for one in errors(child))}


def test_every_path_that_a_page_names_is_there():
    """Folders and files in backticks; what stands in capitals is the reader's to fill in."""
    path = re.compile(
        r"`((?:qdx|exporter|targets|backends|tests|samples|benchmarks|docs)/[\w./-]*)`"
    )
    named = {(page, name) for page in pages() for name in path.findall((ROOT / page).read_text())}
    missing = {
        name
        for _, name in named
        if not name.isupper() and "NAME" not in name and not (ROOT / name).exists()
    }

    assert len(named) >= 20
    assert missing == set()
