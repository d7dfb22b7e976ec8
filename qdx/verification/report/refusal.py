"""What keeps a bundle from being verified stands in `junit.xml` too, so that no suite is merely missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from qdx.exporter.errors import InvalidBundle, InvalidInput, QdxError, UsageError
from qdx.verification.report.place import write_refusal

__all__ = ["refusals_told"]


@contextlib.contextmanager
def refusals_told(bundle: Path | str, report: Path | str | None) -> Iterator[None]:
    """Leaves what keeps a bundle from being verified in its report folder; it is raised as before.

    What an option gets wrong, a model, plan or baseline that is none among that, says nothing of the bundle: it takes no
    earlier report's place.

    Args:
        bundle: The bundle.
        report: The folder; None is none.
    """
    try:
        yield
    except QdxError as error:
        of_an_option = isinstance(error, UsageError | InvalidInput)
        if report is not None and (isinstance(error, InvalidBundle) or not of_an_option):
            _tell(Path(bundle).resolve(), Path(report).resolve(), error)
        raise


def _tell(bundle: Path, folder: Path, error: QdxError) -> None:
    if folder.is_relative_to(bundle):
        return  # with one more file it is no bundle
    # A folder that takes no file, or is somebody else's, cannot tell: the error itself does.
    with contextlib.suppress(QdxError):
        write_refusal(folder, bundle, error)
