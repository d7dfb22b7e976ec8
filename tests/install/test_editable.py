"""An install, editable or not, shows Python and type checkers one and the same package."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import setuptools

from tests.support.layers import PARTS, ROOT

PROGRAM = Path(__file__).parent / "user_program.py"
PYRIGHT = shutil.which("pyright")
WRONG = re.compile(r"# wrong: (?P<mypy>[\w-]+), (?P<pyright>\w+)$")


def run(*command, **options):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )


def copy_tree(folder):
    """What an install reads, in a folder of its own."""
    for part in (*PARTS, "install"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    return folder


def install(folder, tree, *options):
    """A new environment that has the package and nothing else; its Python."""
    tools = folder / "tools"
    tools.mkdir(parents=True)
    packages = Path(setuptools.__file__).parents[1]
    for path in (*packages.glob("setuptools*"), packages / "_distutils_hack"):
        (tools / path.name).symlink_to(path)
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    done = run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
               "--no-index", "--no-build-isolation", *options, tree,
               env={**os.environ, "PYTHONPATH": str(tools)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return python


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def editable(tmp_path_factory, tree):
    return install(tmp_path_factory.mktemp("editable"), tree, "--editable")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tree):
    return install(tmp_path_factory.mktemp("plain"), tree)


@pytest.fixture
def python(request):
    return request.getfixturevalue(request.param)


def expected(checker):
    """What a checker must object to, by line."""
    lines = enumerate(PROGRAM.read_text().splitlines(), start=1)
    return {number: {found[checker]} for number, line in lines if (found := WRONG.search(line))}


def objections_of_mypy(python, folder):
    """Of a copy of the program: mypy looks for packages around a file too, and would find the tree."""
    program = shutil.copy(PROGRAM, folder)
    done = run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", folder / "cache",
               "--python-executable", python, program, cwd=folder)  # fmt: skip
    found = {}
    for line, code in re.findall(r":(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        found.setdefault(int(line), set()).add(code)
    return found


def objections_of_pyright(python, folder):
    program = shutil.copy(PROGRAM, folder)
    done = run(PYRIGHT, "--pythonpath", python, "--outputjson", program, cwd=folder)
    found = {}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        if one["severity"] == "error":
            found.setdefault(one["range"]["start"]["line"] + 1, set()).add(one["rule"])
    return found


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in folder.iterdir()
        for path in ([part] if part.is_file() else part.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_mypy_objects_to_what_is_wrong_and_to_nothing_else(editable, tmp_path):
    assert objections_of_mypy(editable, tmp_path) == expected("mypy")


@pytest.mark.slow
def test_mypy_sees_the_package_of_a_wheel_too(plain, tmp_path):
    assert objections_of_mypy(plain, tmp_path) == expected("mypy")


@pytest.mark.slow
@pytest.mark.skipif(
    PYRIGHT is None, reason="no `pyright` on the path: npm install --global pyright"
)
@pytest.mark.parametrize("python", ["editable", "plain"], indirect=True)
def test_pyright_objects_to_what_is_wrong_and_to_nothing_else(python, tmp_path):
    assert objections_of_pyright(python, tmp_path) == expected("pyright")


def test_python_reads_the_tree_itself(editable, tree, tmp_path):
    code = "import qdx, qdx.exporter.errors as one, qdx.cli.pace as two; print(*(m.__file__ for m in (qdx, one, two)))"
    done = run(editable, "-c", code, cwd=tmp_path)

    assert done.stdout.split() == [
        str(tree / path) for path in ("qdx/__init__.py", "exporter/errors.py", "qdx/cli/pace.py")
    ]


def test_python_reads_the_tree_itself_from_any_folder(editable, tree, tmp_path):
    """A package of the same name in the current folder, such as another copy of the tree, is not mixed into it."""
    (tmp_path / "qdx").mkdir()
    (tmp_path / "qdx" / "__init__.py").touch()

    done = run(editable, "-c", "import qdx; print(qdx.__file__)", cwd=tmp_path)

    assert done.stdout.strip() == str(tree / "qdx" / "__init__.py")


def test_links_show_every_package(editable, tree):
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    links = tree / "build" / "editable"

    assert [
        name for name in packages if not (links / name.replace(".", "/") / "__init__.py").exists()
    ] == []


@pytest.mark.slow
def test_links_show_the_package_as_it_is_installed(editable, tree, plain):
    (installed,) = plain.parents[1].glob("lib/*/site-packages/qdx")

    assert files_of(tree / "build" / "editable" / "qdx") == files_of(installed)


def test_a_new_module_of_a_room_is_seen_without_another_install(editable, tree):
    new = tree / "exporter" / "text" / "new.py"
    new.touch()
    try:
        assert (tree / "build" / "editable" / "qdx" / "exporter" / "text" / "new.py").exists()
    finally:
        new.unlink()


def test_the_list_of_installed_files_has_their_digests(editable):
    (record,) = editable.parents[1].glob("lib/*/site-packages/qdx-*.dist-info/RECORD")
    lines = [line.rsplit(",", 2) for line in record.read_text().splitlines()]
    (name,) = [name for name, _, _ in lines if name.endswith(".pth")]
    data = (record.parents[1] / name).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    assert [name, f"sha256={digest}", str(len(data))] in lines


@pytest.mark.slow
def test_another_mode_of_setuptools_is_left_as_it_is(tree, tmp_path):
    python = install(tmp_path, tree, "--config-settings", "editable_mode=strict", "--editable")
    (path,) = python.parents[1].glob("lib/*/site-packages/__editable__*.pth")
    (line,) = path.read_text().splitlines()

    assert Path(line).is_relative_to(tree / "build")


@pytest.mark.slow
def test_a_system_without_links_installs_all_the_same(tree, tmp_path):
    code = (
        "import editable, pathlib\n"
        "def refuse(*_, **__): raise OSError('a privilege is missing')\n"
        "pathlib.Path.symlink_to = refuse\n"
        f"editable.build_editable({str(tmp_path)!r})"
    )
    done = run(sys.executable, "-c", code, cwd=tree, env={"PYTHONPATH": str(tree / "install")})

    assert done.returncode == 0
    assert "no links: a privilege is missing" in done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert len(archive.read(path).decode().splitlines()) == 1


@pytest.mark.slow
def test_a_source_distribution_installs(tree, tmp_path):
    done = run(sys.executable, "-c", f"import editable; editable.build_sdist({str(tmp_path)!r})",
               cwd=tree, env={"PYTHONPATH": str(tree / "install"), "PATH": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")

    python = install(tmp_path / "environment", archive)

    assert run(python, "-c", "import qdx").returncode == 0
