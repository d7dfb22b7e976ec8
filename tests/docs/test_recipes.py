"""The recipes for continuous integration do what their page says: run as they stand, on a good bundle and on drifted ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.command_lines import parse_words
from tests.support.layers import ROOT
from tests.support.smallest import build_smallest_text_to_image

RECIPES = ROOT / "docs" / "recipes"
WORKFLOW = (RECIPES / "github-actions.yml").read_text()
SCRIPT = (RECIPES / "verify.sh").read_text()
(JOB,) = yaml.safe_load(WORKFLOW)["jobs"].values()
STEPS = {step["name"]: step for step in JOB["steps"] if "name" in step}
PLAN = {
    "schema": "qdx.plan/1",
    "name": "ci",
    "rules": [{"select": {"op": ["conv2d", "linear"]}, "weights": {"dtype": "int8"}}],
    "gates": {
        "component": {"sqnr_db_min": 20},
        "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7},
        "lowering": {},
    },
}
CALL = {"prompt": "a cat", "num_inference_steps": 2}


def faults_of_workflow(text):
    """What a careful reader would object to, a line each."""
    workflow = yaml.safe_load(text)
    wrong = [] if workflow["permissions"] == {"contents": "read"} else ["more rights than to read"]
    if "concurrency" not in workflow:
        wrong.append("pushes do not replace each other's runs")
    for job in workflow["jobs"].values():
        if "timeout-minutes" not in job:
            wrong.append("runs without limit")
        for step in job["steps"]:
            action = step.get("uses", "a/b@v1")
            if not re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|[0-9a-f]{40})", action):
                wrong.append(f"{action} is not pinned")
            if action.startswith("actions/checkout") and step["with"]["persist-credentials"]:
                wrong.append("the token stays in the checkout")
            unknown = set(re.findall(r"\$(\w+)", step.get("run", ""))) - {*workflow["env"],
                                                                          "GITHUB_STEP_SUMMARY"}  # fmt: skip
            wrong += [f"${name} is set nowhere" for name in sorted(unknown)]
    return wrong


def commands_of(text):
    """The words of every qdx command in a script."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.partition(">>")[0]) for line in lines if "qdx " in line]
    return [line[1:] for line in words if line[0] == "qdx"]


def test_the_workflow_is_careful():
    assert faults_of_workflow(WORKFLOW) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("contents: read", "contents: write", "rights"),
        ("actions/cache@v5", "actions/cache@main", "pinned"),
        ("    timeout-minutes: 60\n", "", "limit"),
        ("persist-credentials: false", "persist-credentials: true", "token"),
        ("  TARGET: onnxruntime\n", "", r"\$TARGET is set nowhere"),
        ("concurrency:", "other:", "pushes"),
    ],
)
def test_a_careless_workflow_is_seen(old, new, fault):
    assert old in WORKFLOW
    assert re.search(fault, "\n".join(faults_of_workflow(WORKFLOW.replace(old, new))))


def test_the_commands_of_the_recipes_exist():
    scripts = [SCRIPT, *(step["run"] for step in STEPS.values())]
    commands = [words for script in scripts for words in commands_of(script)]

    assert [words[0] for words in commands] == ["export", "verify", "export", "verify", "report"]
    for words in commands:
        parse_words(words)


def test_the_cache_is_the_folder_that_qdx_uses():
    caches = [step["with"] for step in JOB["steps"] if "cache" in step.get("uses", "")]

    assert [one["path"] for one in caches] == [yaml.safe_load(WORKFLOW)["env"]["QDX_CACHE"]]
    assert caches[0]["key"].startswith(caches[0]["restore-keys"])


def test_the_report_is_kept_though_a_gate_fails():
    (upload,) = [step for step in JOB["steps"] if "upload" in step.get("uses", "")]

    assert upload["if"] == "${{ !cancelled() }}"
    assert f"--report {upload['with']['path']}" in STEPS["Verify"]["run"]


def test_the_script_is_one_of_any_shell():
    assert subprocess.run(["sh", "-n"], input=SCRIPT, text=True, check=False).returncode == 0


class Repository:
    """A repository of a user, and the machine that checks it."""

    def __init__(self, folder):
        self.folder = folder
        self.summary = folder / "summary.md"

    @classmethod
    def new(cls, folder, model, plan):
        shutil.copytree(model, folder / "model")
        (folder / "ci").mkdir()
        (folder / "ci" / "plan.json").write_text(json.dumps(plan))
        (folder / "ci" / "call.json").write_text(json.dumps(CALL))
        (folder / "ci" / "requirements.txt").touch()  # qdx is installed
        return cls(folder)

    def copy(self, folder):
        shutil.copytree(self.folder, folder)
        shutil.rmtree(folder / "out" / "report")
        return Repository(folder)

    def run(self, *command, **variables):
        """The exit status of a command."""
        environment = {
            **os.environ,
            **yaml.safe_load(WORKFLOW)["env"],
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            **variables,
        }
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, check=False
        ).returncode

    def step(self, name):
        """The status of a step, run by the shell that GitHub takes."""
        return self.run("bash", "-e", "-o", "pipefail", "-c", STEPS[name]["run"])

    def script(self, **variables):
        return self.run("sh", str(RECIPES / "verify.sh"), **variables)

    def alter_a_byte(self):
        path = self.folder / "out" / "bundle" / "unet" / "model.onnx_data"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest_text_to_image(tmp_path_factory.mktemp("model") / "smallest")


@pytest.fixture(scope="module")
def good(tmp_path_factory, model):
    """A repository after the steps of the workflow, which are all green."""
    repository = Repository.new(tmp_path_factory.mktemp("good") / "repository", model, PLAN)
    statuses = {name: repository.step(name) for name in STEPS}

    assert statuses == {"Install": 0, "Export": 0, "Verify": 0, "Summary": 0}
    return repository


@pytest.mark.slow
def test_a_good_bundle_is_green_and_leaves_its_report(good):
    assert {"report.html", "report.json", "junit.xml"} <= {
        path.name for path in (good.folder / "out" / "report").iterdir()
    }
    assert "pipeline.psnr_db" in good.summary.read_text()
    assert any((good.folder / ".qdx-cache").iterdir())


@pytest.mark.slow
def test_an_artifact_with_an_altered_byte_is_red(good, tmp_path):
    drifted = good.copy(tmp_path / "repository")
    drifted.alter_a_byte()

    assert drifted.step("Verify") == 2
    assert drifted.step("Summary") == 0


@pytest.mark.slow
def test_the_script_verifies_a_bundle_that_is_there(good, tmp_path):
    repository = good.copy(tmp_path / "repository")

    assert repository.script(BUNDLE="out/bundle", OUT="given") == 0
    assert {path.name for path in (repository.folder / "given").iterdir()} == {"report"}
    repository.alter_a_byte()
    assert repository.script(BUNDLE="out/bundle", OUT="given") == 2


@pytest.mark.slow
def test_a_gate_that_fails_is_red_and_leaves_its_report(tmp_path, model):
    strict = {**PLAN, "gates": {**PLAN["gates"], "component": {"sqnr_db_min": 90}}}
    repository = Repository.new(tmp_path / "repository", model, strict)

    assert repository.script() == 1
    assert (repository.folder / "out" / "report" / "junit.xml").exists()
    assert repository.step("Summary") == 0
    assert "FAILED" in repository.summary.read_text()
