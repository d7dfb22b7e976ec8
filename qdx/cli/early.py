"""What a command can refuse within a second: said before PyTorch or a runtime is imported."""

from __future__ import annotations

from pathlib import Path

from qdx.bundle.no_bundle import check_is_bundle
from qdx.exporter.capture.no_pipeline import check_is_pipeline
from qdx.exporter.errors import InvalidBundle

__all__ = ["check_bundle", "check_bundle_and_model", "check_model"]


def check_model(model: Path | None) -> None:
    """Refuses a path that cannot be a pipeline folder; None is none.

    Raises:
        InvalidModel: With what it is instead.
    """
    if model is not None:
        check_is_pipeline(model)


def check_bundle(bundle: Path) -> None:
    """Refuses a path that cannot be a bundle.

    Raises:
        InvalidBundle: With what it is instead.
    """
    check_is_bundle(bundle)


def check_bundle_and_model(bundle: Path, model: Path | None) -> None:
    """Refuses a bundle and its model where either is something else, the two in each other's place among that.

    Raises:
        InvalidBundle: The bundle is none.
        InvalidModel: The model is none.
    """
    try:
        check_is_bundle(bundle)
    except InvalidBundle as bad:
        if model is not None and (model / "qdx.json").is_file():
            raise InvalidBundle(
                bad.message, hint=f"the two are in each other's place: BUNDLE is {model}, --model {bundle}"
            ) from None
        raise
    check_model(model)
