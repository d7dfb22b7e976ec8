"""Where a verification may write: outside of what it reads, and one output outside of the other."""

from __future__ import annotations

import os
from pathlib import Path

from qdx.exporter.errors import UsageError, quoted

__all__ = ["check_places"]


def check_places(
    bundle: Path | str,
    model: object,
    *,
    report: Path | str | None,
    save_reference: Path | str | None,
) -> None:
    """Refuses outputs in the bundle, in the model's folder or in each other. Nothing is opened.

    With one more file a bundle is none any more, and a model is another.

    Args:
        bundle: The bundle.
        model: The pipeline folder; a pipeline in memory has no folder that could be written into.
        report: Folder for the report.
        save_reference: Folder for a reference.

    Raises:
        UsageError: An output lies where it would change what is read, or the other output.
    """
    outputs = {"--report": report, "--save-reference": save_reference}
    given = {option: Path(path) for option, path in outputs.items() if path is not None}
    read = [Path(bundle)] + ([Path(model)] if isinstance(model, str | os.PathLike) else [])
    for option, path in given.items():
        others = [one for other, one in given.items() if other != option]
        for place in (*read, *others):
            if path.resolve().is_relative_to(place.resolve()):
                raise UsageError(
                    f"{option}: {quoted(path)} lies in {quoted(place)}, expected a folder elsewhere",
                    hint="give each output a folder of its own",
                )
