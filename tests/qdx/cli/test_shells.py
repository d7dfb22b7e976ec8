"""Completion in the shells themselves; each is skipped where it is not installed."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time

import pytest

from tests.support.layers import ROOT

try:
    import pty
except ImportError:  # not on Windows
    pty = None

_SECONDS = 30


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def folder(tmp_path):
    """A folder with what is completed in it, and a program of the name `qdx` on the path."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "qdx"
    program.write_text(f"#!{sys.executable}\nfrom qdx.cli.main import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "shapes").symlink_to(ROOT / "samples" / "shapes")
    (tmp_path / "my plan.json").write_text("{}")
    (tmp_path / "myself.txt").write_text("")
    return tmp_path


def environment(folder):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": "", "HOME": str(folder), "TERM": "dumb"}


def run(shell, folder, script):
    done = subprocess.run(
        shell, input=script, capture_output=True, text=True, check=True, cwd=folder,
        env=environment(folder), timeout=_SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@needs("bash")
def test_bash(folder):
    expected = {
        "exp": ["export"],
        "export shapes --comp": ["--components"],
        "export shapes --plan w8": ["w8", "w8a8"],
        "export shapes --plan = w8a": ["w8a8"],
        "export shapes --plan m": ["mxfp8", "my plan.json"],
        "export shapes --target openv": ["openvino"],
        "export shapes --components unet,v": ["unet,vae"],
        "export sh": ["shapes"],
    }
    script = "source <(qdx completion bash)\n" + "".join(
        f"COMP_WORDS=(qdx {line}); COMP_CWORD={len(line.split())}; _qdx qdx\n"
        'printf "%s\\n" "${COMPREPLY[@]}" --\n'
        for line in expected
    )
    answers = run(["bash", "--norc"], folder, script).split("--\n")

    found = (sorted(one.splitlines()) for one in answers)
    assert dict(zip(expected, found, strict=False)) == expected


@needs("fish")
def test_fish(folder):
    expected = {
        "qdx exp": {"export"},
        "qdx export shapes --components unet,v": {"unet,vae"},
        "qdx export shapes --target=openv": {"--target=openvino"},
        "qdx export shapes --plan mx": {"mxfp8"},
        "qdx export shapes --plan my": {"my plan.json", "myself.txt"},
        "qdx export sh": {"shapes/"},
    }
    script = "qdx completion fish | source\n" + "".join(
        f"complete -C '{line}'; echo +++\n" for line in expected
    )
    answers = run(["fish", "--no-config"], folder, script).split("+++\n")

    assert expected == {
        line: {one.partition("\t")[0] for one in answer.splitlines()}
        for line, answer in zip(expected, answers, strict=False)
    }


@needs("zsh")
@pytest.mark.skipif(pty is None, reason="zsh completes on a terminal only")
def test_zsh(folder):
    expected = {
        "qdx exp": "qdx export ",
        "qdx export shapes --components un": "qdx export shapes --components unet ",
        "qdx export shapes --plan=w8a": "qdx export shapes --plan=w8a8 ",
        "qdx export shapes --target openv": "qdx export shapes --target openvino ",
        "qdx plan check my": r"qdx plan check my\ plan.json ",
        "qdx export shapes --plan=my": r"qdx export shapes --plan=my\ plan.json ",
        "qdx export sh": "qdx export shapes/",
    }

    assert in_zsh(folder, list(expected)) == expected


@needs("zsh")
def test_zsh_takes_the_script_as_a_file_of_its_own(folder):
    script = run(["zsh", "-f"], folder, "qdx completion zsh")

    assert script.startswith("#compdef qdx\n")
    assert run(["zsh", "-f", "-n"], folder, script) == ""


_READY = """\
autoload -U compinit; compinit -u -D; source <(qdx completion zsh)
keep() {{ print -r -- $BUFFER >> {kept}; BUFFER= }}; zle -N keep; bindkey '^T' keep; print >> {kept}
"""


def in_zsh(folder, lines):
    """What becomes of each line with the key TAB."""
    kept = folder / "kept"
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f"], environment(folder))
    try:
        os.write(terminal, _READY.format(kept=kept).encode())
        wait(terminal, kept, 1)
        for number, line in enumerate(lines):
            os.write(terminal, f"{line}\t\x14".encode())
            wait(terminal, kept, number + 2)
        return dict(zip(lines, kept.read_text().splitlines()[1:], strict=True))
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def wait(terminal, kept, lines):
    """Waits until the file has so many lines; what the terminal shows is taken from it meanwhile."""
    shown, deadline = b"", time.monotonic() + _SECONDS
    while not kept.exists() or len(kept.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.02)[0]:
            shown += os.read(terminal, 65536)
