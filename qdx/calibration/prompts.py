"""Prompts for calibration: read from a file, dealt out to samples, and recorded without their text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from qdx.exporter.calibrate.provenance import Prompts
from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import dump_json, read_text
from qdx.exporter.limits import PROMPT_LIMIT, PROMPTS_FILE_LIMIT_BYTES, PROMPTS_LIMIT

__all__ = ["prompts_record", "read_prompts", "sample_calls"]

_ONE_EACH: Final = "write one prompt on each line"
_NO_FILE: Final = "write the prompts to a text file, one on each line, and give its name"


def read_prompts(path: Path | str) -> list[str]:
    """Reads prompts, one on each line; empty lines are left out.

    Args:
        path: A UTF-8 text.

    Raises:
        InvalidInput: The file is missing, too large, not UTF-8, holds no prompt or one that is no plain text.
        StorageError: Reading failed.
    """
    try:
        text = read_text(path, PROMPTS_FILE_LIMIT_BYTES, error=InvalidInput, allow_hard_links=True)
    except InvalidInput as bad:
        raise InvalidInput(bad.message, hint=bad.hint or _NO_FILE) from None
    prompts: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        prompt = line.strip()
        if not prompt:
            continue
        if len(prompt) > PROMPT_LIMIT or not prompt.isprintable():
            raise InvalidInput(
                f"{quoted(f'{path}:{number}')}: not a prompt, expected up to {PROMPT_LIMIT} printable characters",
                hint=_ONE_EACH,
            )
        prompts.append(prompt)
    if not 1 <= len(prompts) <= PROMPTS_LIMIT:
        raise InvalidInput(
            f"{quoted(path)}: {len(prompts)} prompts, expected 1 to {PROMPTS_LIMIT}",
            hint=_ONE_EACH,
        )
    return prompts


def sample_calls(
    call: dict[str, Any], samples: int, prompts: Sequence[str] | None
) -> list[dict[str, Any]]:
    """The pipeline call of every sample.

    Args:
        call: The complete call.
        samples: How many.
        prompts: Each sample takes as many as the call's own prompt is long, from the first on and round
            again; None leaves the calls alike.

    Raises:
        UsageError: There are no prompts, or the call takes none.
    """
    if prompts is None:
        return [call] * samples
    if not prompts:
        raise UsageError("calibration: no prompts are given, expected one at least",
                         hint="give None to keep the call's own prompt")  # fmt: skip
    own = call.get("prompt")
    if own is None:
        raise UsageError(
            f"calibration: the pipeline is called without a prompt, got {len(prompts)} prompts",
            hint="leave the prompts out; samples then differ in their noise",
        )
    if isinstance(own, str):
        return [{**call, "prompt": prompts[i % len(prompts)]} for i in range(samples)]
    size = len(own)
    return [
        {**call, "prompt": [prompts[(i * size + j) % len(prompts)] for j in range(size)]}
        for i in range(samples)
    ]


def prompts_record(
    calls: Sequence[dict[str, Any]], prompts: Sequence[str] | None
) -> Prompts | None:
    """The prompts that were used, in the order of use, without their text."""
    if prompts is None:
        return None
    used = [one["prompt"] for one in calls]
    texts = {text for one in used for text in ([one] if isinstance(one, str) else one)}
    return Prompts(count=len(texts), sha256=hashlib.sha256(dump_json(used)).hexdigest())
