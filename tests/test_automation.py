"""What runs on its own, in GitHub Actions and before commits, is well formed and calls what is there."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from tests.support.layers import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text()
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()
MAKE = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def faults_of_workflow(text):
    """What is wrong with a workflow, a line each."""
    jobs = yaml.safe_load(text)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    faults = [
        f"{name} runs without limit" for name, job in jobs.items() if "timeout-minutes" not in job
    ]
    for step in steps:
        if "uses" in step and not re.fullmatch(
            r"[\w-]+/[\w-]+@(v\d+(\.\d+)*|[0-9a-f]{40})", step["uses"]
        ):
            faults.append(f"{step['uses']} is not pinned")
        program, argument, *_ = step.get("run", "make test").split()
        if program != "make" or argument not in MAKE:
            faults.append(f"{step['run']} is not a command of the Makefile")
        version = step.get("with", {}).get("python-version")
        if version is not None and not isinstance(version, str):
            faults.append(f"{version} is a number: write it in quotes")
    return faults


def test_the_workflow_calls_what_is_there():
    assert faults_of_workflow(WORKFLOW) == []


def test_the_workflow_runs_the_tests_and_builds_the_site():
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    commands = {
        step["run"].split()[1] for job in jobs.values() for step in job["steps"] if "run" in step
    }

    assert commands == {"test", "docs"}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == lowest


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("actions/checkout@v7", "actions/checkout@main", "pinned"),
        ("make docs", "make pages", "Makefile"),
        ("make docs", "sh build.sh", "Makefile"),
        ('python-version: "3.11"', "python-version: 3.11", "quotes"),
        ("    timeout-minutes: 30\n", "", "limit"),
    ],
)
def test_a_fault_in_the_workflow_is_seen(old, new, fault):
    assert old in WORKFLOW
    assert [fault in one for one in faults_of_workflow(WORKFLOW.replace(old, new))].count(True) >= 1


def test_hooks_run_from_the_environment_of_the_tests():
    tests = {re.split(r"\W", name)[0] for name in PROJECT["optional-dependencies"]["test"]}
    for repository in yaml.safe_load(HOOKS)["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            program, argument, *_ = hook["entry"].split()
            assert hook["language"] == "system"
            if program == "make":
                assert argument in MAKE
            else:
                assert program.removeprefix(".venv-test/bin/") in tests
