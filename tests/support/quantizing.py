"""Plans that quantize, and what is made with them, for several tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.adversity import Done
from tests.support.processor import SEVEN_BITS

if TYPE_CHECKING:
    from qdx.compile.export import ExportResult

CALL = {"num_inference_steps": 3}
CALL_OPTION = ("--call", json.dumps(CALL))
STATIC = {
    "weights": {"dtype": "int8", **({"reduce_range": True} if SEVEN_BITS else {})},
    "inputs": {"dtype": "int8"},
}
WEIGHTS = {"weights": {"dtype": "int8"}}
FOUR_BITS = {"weights": {"dtype": "int4", "granularity": "block", "block": 16}}


def plan(scheme: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """A plan for the convolutions and linear layers of a UNet."""
    rule = {"select": {"component": "unet", "op": ["conv2d", "linear"]}, **(scheme or STATIC)}
    return {
        "schema": "qdx.plan/1",
        "name": "tested",
        "rules": [rule],
        "options": options,
        "calibration": {"samples": 1, "steps": 2, "timestep_groups": 2},
        "gates": {
            "component": {"sqnr_db_min": 10},
            "pipeline": {"psnr_db_min": 5, "ssim_min": 0.0},
        },
    }


def write_plan(folder: Path, value: dict[str, Any], name: str = "plan.json") -> Path:
    """Writes a plan to a file."""
    path = folder / name
    path.write_text(json.dumps(value))
    return path


def run_command(*arguments: object) -> Done:
    """Runs a command line in this process."""
    import contextlib
    import io

    from qdx.cli.main import run_command as run

    words = io.StringIO()
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(io.StringIO()):
        status = run([str(one) for one in arguments])
    return Done(status, words.getvalue())


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def export(
    model: Path, folder: Path, value: dict[str, Any], target: str = "onnxruntime", **arguments: Any
) -> ExportResult:
    """Exports a model with a plan to `folder/target`."""
    import qdx

    given = {"call": dict(CALL), **arguments}
    return qdx.export(
        model, target=target, plan=write_plan(folder, value), output=folder / target, **given
    )
