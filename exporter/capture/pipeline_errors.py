"""What a pipeline's own Python raises, as errors of the call or of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Final

from qdx.exporter.capture.folder import PipelineFolder
from qdx.exporter.capture.library_errors import environment_fault, raised_in
from qdx.exporter.capture.size_hints import size_hint
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
        UsageError: The pipeline rejects its arguments: Python cannot bind them, or a check of diffusers' says so.
        InvalidModel: The pipeline fails for another reason, such as a package that it needs here.
    """
    try:
        yield
    except (QdxError, MemoryError):
        raise
    except Exception as error:  # the pipeline's own Python may raise anything
        fault = environment_fault(error)
        if fault is not None:
            message = f"{quoted(folder.path)}: {failed}: {fault.words}"
            raise InvalidModel(message, hint=fault.hint) from error
        if isinstance(error, ValueError | TypeError) and _is_about_the_call(error):
            reason = first_line(error)
            hint = size_hint(reason) or call_hint
            raise UsageError(f"{rejected}: {reason}", hint=hint) from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(
            error, ValueError | TypeError
        ):  # mostly of arguments, and here of none of the user's
            reason += f" (raised in {raised_in(error)})"
        message = f"{quoted(folder.path)}: {failed}: {reason}"
        raise InvalidModel(message, hint=model_hint) from error


# Where diffusers checks what it is called with; what its models raise is about what they were built from.
_CHECKERS: Final = (
    "diffusers.pipelines.",
    "diffusers.image_processor",
    "diffusers.video_processor",
    "diffusers.schedulers.",
    "diffusers.utils.",
)


def _is_about_the_call(error: ValueError | TypeError) -> bool:
    """Whether an error says that the arguments are wrong, and was not met deep in a library with right ones."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
    entered = any(module.startswith("diffusers.pipelines.") for module in modules)
    return not entered or modules[-1].startswith(_CHECKERS)
