"""What a bundle is compared with: the model, or a stored reference that stands for it."""

from __future__ import annotations

from qdx.exporter.errors import UsageError

__all__ = ["check_sources"]


def check_sources(model: object | None, reference: object | None) -> None:
    """Refuses anything but one of the two. Nothing is opened.

    Raises:
        UsageError: Neither is given, or both are.
    """
    if model is None and reference is None:
        raise UsageError(
            "neither --model nor --reference is given, expected what the bundle is compared with",
            hint="add --model and the diffusers pipeline folder that the bundle was exported from, or --reference and "
            "what `qdx verify --save-reference` wrote",
        )
    if model is not None and reference is not None:
        raise UsageError(
            "--reference: does not go together with --model: what PyTorch did is stored, expected one of the two",
            hint="leave out --reference to run the model, or --model to take what is stored",
        )
