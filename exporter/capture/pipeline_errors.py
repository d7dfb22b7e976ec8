"""What a pipeline's own Python raises, as errors of the call or of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qdx.exporter.capture.folder import PipelineFolder
from qdx.exporter.errors import InvalidModel, QdxError, UsageError, first_line, quoted

__all__ = ["pipeline_errors"]


@contextmanager
def pipeline_errors(
    folder: PipelineFolder, *, rejected: str, failed: str, call_hint: str, model_hint: str
) -> Iterator[None]:
    """Says what went wrong where a pipeline runs in this context.

    Args:
        folder: The pipeline's.
        rejected: That it does not take the call, in words that the reason follows.
        failed: That it fails for another reason, likewise.
        call_hint: What to do about the first.
        model_hint: What to do about the second.

    Raises:
        UsageError: The pipeline rejects its arguments.
        InvalidModel: The pipeline fails for another reason.
    """
    try:
        yield
    except (QdxError, MemoryError):
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"{rejected}: {first_line(error)}", hint=call_hint) from error
    except Exception as error:  # the pipeline's own Python may raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InvalidModel(f"{quoted(folder.path)}: {failed}: {reason}", hint=model_hint) from error
