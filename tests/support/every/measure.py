"""One pipeline class: exported, opened, its output compared with that of stock diffusers, and verified."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from transformers import set_seed

import qdx
from qdx.cli.main import run_command
from tests.support.every.build import Case, make_case, save
from tests.support.every.calls import values, write_call

LEAST_DB: Final = 90.0
"""Two float32 runtimes differ by rounding alone: 110 to 140 dB."""
REFUSALS: Final = (2, 3, 4)
"""Exit statuses of a clear refusal: wrong input, what a target cannot do, a runtime that is not installed."""
Outcome = Literal["works", "refused", "fails", "not built"]
_MOST_DB: Final = 200.0
_DEFECT: Final = 70


@dataclass(frozen=True)
class Result:
    """What became of one pipeline class.

    Attributes:
        pipeline: Its name in diffusers.
        runs_in_pytorch: Whether the small folder draws there.
        outcome: `works` where its gates hold, and at `LEAST_DB` or more in float32; `refused` with the exit status of a
            refusal; `not built` where the small pipeline itself does not run in PyTorch; else `fails`.
        psnr_db: Of the artifact's output against PyTorch's: in float32 of any field, the peak is the range of PyTorch's;
            else what the report says. None where there is none.
        exit_status: Of the export; None where it was not reached.
        message: What was said, or what is wrong.
        frame: Where the first cause was raised, and where in qdx it passed last.
        seconds: All together.
    """

    pipeline: str
    runs_in_pytorch: bool
    outcome: Outcome
    psnr_db: float | None = None
    exit_status: int | None = None
    message: str = ""
    frame: str = ""
    seconds: float = 0.0


def measure(
    name: str,
    folder: Path,
    target: str,
    plan: str,
    *,
    shapes: str = "static",
    as_python: bool = False,
) -> Result:
    """Exports one class, opens it and draws with it; raises nothing of the pipeline's or of qdx's.

    Args:
        name: The class in diffusers.
        folder: An empty folder to work in.
        target: Where to export to.
        plan: With which plan.
        shapes: `static` or `dynamic`.
        as_python: Give the call to `qdx.export` rather than as a file to the command.
    """
    began = time.monotonic()

    def result(outcome: Outcome, said: str = "", frame: str = "", **found: Any) -> Result:
        message = said.replace(str(folder / "model"), "MODEL").replace(str(folder), "…")
        told = {"runs_in_pytorch": True, **found}
        return Result(
            name,
            outcome=outcome,
            message=message,
            frame=frame,
            seconds=round(time.monotonic() - began, 1),
            **told,
        )

    with _Caught() as caught:
        case = make_case(name)
        save(case, folder / "model")
        reference = _stock(case, folder / "model")
        expected = draw(reference, case)
    if caught.error is not None:
        return result(
            "not built", _words(caught.error), _frames(caught.error), runs_in_pytorch=False
        )
    if not all(np.isfinite(one).all() for one in expected.values()) or not any(
        one.std() > 0 for one in expected.values()
    ):
        return result(
            "not built", "PyTorch's output is not finite, or all equal", runs_in_pytorch=False
        )
    status, said, frame = _export(case, folder, target, plan, shapes, as_python=as_python)
    if status:
        return result("refused" if status in REFUSALS else "fails", said, frame, exit_status=status)
    db = None
    if plan == "float32":
        with _Caught() as caught:
            drawn = draw(qdx.open(folder / "bundle"), case)
        if caught.error is not None:
            said = f"when opened or called: {_words(caught.error)}"
            return result("fails", said, _frames(caught.error), exit_status=0)
        db, where = compared(expected, drawn)
        if db < LEAST_DB:
            again, _ = compared(expected, draw(reference, case))
            doubt = "" if again >= LEAST_DB else f"; PyTorch differs from itself, {again} dB"
            found_db = db if np.isfinite(db) else None
            return result("fails", f"{where}: {db} dB{doubt}", psnr_db=found_db, exit_status=0)
    with _Caught() as caught:
        report = qdx.verify(folder / "bundle", model=folder / "model")
    if caught.error is not None:
        said = f"when verified: {_words(caught.error)}"
        return result("fails", said, _frames(caught.error), psnr_db=db, exit_status=0)
    missed = "; ".join(
        f"{gate.name} is {gate.value}, expected {gate.sense} {gate.bound} {gate.note}".strip()
        for gate in report.gates
        if not gate.ok
    )
    outcome: Outcome = "works" if report.ok else "fails"
    db = report.pipeline.psnr_db if db is None else db
    return result(outcome, missed and f"gates: {missed}", psnr_db=db, exit_status=0)


def warm_up(target: str) -> None:
    """Exports the smallest pipeline: what the libraries load and prepare at their first use, forks then have."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        case = make_case("DDPMPipeline")
        save(case, Path(place) / "model")
        _export(case, Path(place), target, "float32", "static", as_python=False)


def _stock(case: Case, folder: Path) -> Any:
    """The folder as diffusers reads it; where it cannot read what it wrote, the pipeline that it wrote."""
    with _Caught() as caught:
        pipeline = type(case.pipeline).from_pretrained(folder)
    if caught.error is not None:
        # It reads some of what it writes only with packages that are not here, and checkers are in no folder.
        return case.pipeline
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: Any, case: Case) -> dict[str, Any]:
    """What a pipeline answers, by field, as arrays of float64."""
    call = values(case.call)
    taken = inspect.signature(type(pipeline).__call__).parameters
    if "generator" in taken:
        call["generator"] = torch.Generator().manual_seed(1)
    if "output_type" in taken:
        call.setdefault("output_type", "np")
    set_seed(1)  # pipelines that draw from the global states draw from these
    answered = pipeline(**call)
    if not isinstance(answered, Mapping):
        answered = dict(enumerate(answered if isinstance(answered, tuple) else (answered,)))
    found = {str(key): _array(value) for key, value in answered.items()}
    return {key: value for key, value in found.items() if value is not None}


def _array(value: Any) -> Any:
    if torch.is_tensor(value):
        return value.detach().numpy().astype(np.float64)
    if isinstance(value, list | tuple):
        inner = [one for one in map(_array, value) if one is not None]
        return np.stack(inner) if inner else None
    if isinstance(value, np.ndarray) or hasattr(value, "getpixel"):
        return np.asarray(value, dtype=np.float64)
    return None


def compared(expected: Mapping[str, Any], drawn: Mapping[str, Any]) -> tuple[float, str]:
    """The lowest PSNR of any field in dB, and that field.

    At most 200; minus infinity where fields or shapes differ or a value is not finite.
    """
    if set(expected) != set(drawn):
        return -np.inf, f"fields {sorted(drawn)}, expected {sorted(expected)}"
    worst, where = _MOST_DB, ""
    for field, one in expected.items():
        if drawn[field].shape != one.shape:
            return -np.inf, f"{field} of shape {drawn[field].shape}, expected {one.shape}"
        if not np.isfinite(drawn[field]).all():
            return -np.inf, f"{field} is not finite"
        peak = float(np.ptp(one)) or 1.0
        error = float(np.mean((one - drawn[field]) ** 2))
        db = min(_MOST_DB, 10 * float(np.log10(peak**2 / error))) if error else _MOST_DB
        if db < worst:
            worst, where = round(db, 1), field
    return worst, where


def _export(
    case: Case, folder: Path, target: str, plan: str, shapes: str, *, as_python: bool
) -> tuple[int, str, str]:
    """Exit status, message and frames of an export."""
    model, bundle = folder / "model", folder / "bundle"
    if as_python:
        with _Caught() as caught:
            qdx.export(
                model,
                target=target,
                plan=plan,
                output=bundle,
                call=values(case.call),
                shapes=shapes,
            )
        error = caught.error
        if error is None:
            return 0, "", ""
        status = error.exit_code if isinstance(error, qdx.QdxError) else _DEFECT
        return status, str(error) if status != _DEFECT else _words(error), _frames(error)
    call = write_call(case.call, folder / "inputs")
    out = io.StringIO()
    command = [
        "export",
        model,
        "--target",
        target,
        "--plan",
        plan,
        "--shapes",
        shapes,
        "--call",
        call,
        "-o",
        bundle,
    ]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = run_command(["--debug", *(str(one) for one in command)])
    if not status:
        return 0, "", ""
    said = out.getvalue()
    return status, said.rpartition("error: ")[2].strip()[:1500], _printed_frames(said)


class _Caught(contextlib.AbstractContextManager["_Caught"]):
    """Keeps what is raised inside: whatever a library or qdx raises is a finding."""

    error: Exception | None = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:600]}"


_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def _printed_frames(text: str) -> str:
    first = text.partition("The above exception")[0]
    return _told([(path, int(line), name) for path, line, name in _FRAME.findall(first)])


def _frames(error: BaseException) -> str:
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return _told(
        [
            (one.filename, one.lineno or 0, one.name)
            for one in traceback.extract_tb(root.__traceback__)
        ]
    )


def _told(frames: Sequence[tuple[str, int, str]]) -> str:
    """The innermost frame, and the innermost of qdx."""
    ours = [
        one
        for one in frames
        if re.search(r"/(qdx|exporter|backends|targets)/", one[0]) and "site-packages" not in one[0]
    ]
    last = [*frames[-1:], *(one for one in ours[-1:] if one != frames[-1])]
    return " < ".join(
        f"{'/'.join(path.split('/')[-3:])}:{line} {name}" for path, line, name in last
    )
