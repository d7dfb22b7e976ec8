"""What the tests of bad input and interruptions share: copies of models, and the command line in process."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qdx.cli.main import run_command

SMALL_CALL = ("--call", '{"num_inference_steps": 1}')


@dataclass(frozen=True)
class Done:
    """How a command line ended."""

    status: int
    err: str


def run_export(model: Path, output: Path, *extra: str, target: str = "onnxruntime") -> Done:
    """Runs `qdx export` in this process."""
    words = io.StringIO()
    arguments = ["export", str(model), "--target", target, "-o", str(output), *extra]
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(io.StringIO()):
        status = run_command(arguments)
    return Done(status, words.getvalue())


def export_of_changed(
    source: Path, change: Callable[[Path], object], place: Path, *extra: str
) -> Done:
    """Exports a changed copy of a model; asserts one clear message and nothing on the disk."""
    model, out = place / "model", place / "out"
    shutil.copytree(source, model)
    out.mkdir()
    change(model)
    done = run_export(model, out / "bundle", *extra)
    assert list(out.iterdir()) == [], done
    assert done.err.startswith("error: "), done
    assert done.err.count("error: ") == 1, done
    assert "Traceback" not in done.err
    return done


def edit(path: Path, **changes: object) -> None:
    """Changes keys of a JSON file."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(value))
