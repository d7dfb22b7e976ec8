"""Methods of a pipeline that are called before its call, such as `enable_vae_tiling`: what JSON can say of a set-up.

They change how components compute, so they are part of what is exported, and whoever builds the pipeline repeats them. Only
switches and settings count; what loads files, moves weights or computes is no setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qdx.exporter.errors import UsageError, first_line, quoted

__all__ = ["Setup", "apply_setup", "check_setup"]

Setup = tuple[dict[str, dict[str, Any]], ...]
"""Calls in order, each a method, of the pipeline or of a component as `vae.enable_tiling`, and its arguments by name."""

_PREFIXES: Final = ("enable_", "disable_", "set_")
_WITHOUT_EFFECT: Final = ("offload", "xformers", "progress_bar", "attention_backend", "npu")
_STEPS_LIMIT: Final = 64


def check_setup(steps: Any) -> Setup:
    """Checks that a set-up is what JSON can say of one.

    Args:
        steps: A list of objects with one key each: the method, and its arguments by name.

    Raises:
        UsageError: It is something else, or a method is no setting.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str) or len(steps) > _STEPS_LIMIT:
        raise _malformed(steps)
    for step in steps:
        if not isinstance(step, Mapping) or len(step) != 1:
            raise _malformed(step)
        ((method, arguments),) = step.items()
        if not isinstance(method, str) or not isinstance(arguments, Mapping):
            raise _malformed(step)
        _check_method(method)
    return tuple({name: dict(given) for name, given in step.items()} for step in steps)


def apply_setup(pipeline: Any, setup: Setup) -> None:
    """Calls the methods of a set-up on a pipeline.

    Raises:
        UsageError: The pipeline has no such method, or it rejects its arguments.
    """
    for step in setup:
        ((name, arguments),) = step.items()
        owner_name, _, method = name.rpartition(".")
        owner = pipeline.components.get(owner_name) if owner_name else pipeline
        function = getattr(owner, method, None)
        if not callable(function):
            raise UsageError(
                f"--setup: {type(pipeline).__name__} has no method {quoted(name)}",
                hint="name a method of the pipeline, or of a component as `vae.enable_tiling`",
            )
        try:
            function(**arguments)
        except Exception as error:  # the pipeline's own Python may raise anything
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"--setup: {quoted(name)} failed: {reason}") from error


def _check_method(name: str) -> None:
    owner, _, method = name.rpartition(".")
    if "." in owner or not method.startswith(_PREFIXES):
        raise UsageError(
            f"--setup: {quoted(name)} is no setting, expected a method that begins with enable_, disable_ or set_",
            hint="what loads files or computes is done in diffusers: change the pipeline there, and export it from Python",
        )
    if any(word in method for word in _WITHOUT_EFFECT):
        raise UsageError(
            f"--setup: {quoted(name)} changes where or how fast PyTorch computes, and nothing of what is exported",
            hint="leave it out",
        )


def _malformed(value: Any) -> UsageError:
    return UsageError(
        f"--setup: {quoted(value)}, expected a list of methods with their arguments",
        hint="for example --setup '[{\"enable_vae_tiling\": {}}]'",
    )
