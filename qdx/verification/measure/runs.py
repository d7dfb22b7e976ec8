"""Running the artifact's own pipeline, and what pictures a run made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.progress import SILENT
from qdx.runtime.generate import Products
from qdx.runtime.pipeline import attach, open_skeleton
from qdx.verification.measure.picture import attempt
from qdx.verification.measure.samples import Made, RunSpec, Trajectory

if TYPE_CHECKING:
    import torch

    from qdx.bundle.reader import Bundle
    from qdx.exporter.capture.model import Model
    from qdx.exporter.progress import Progress, Task
    from qdx.runtime.methods import TargetMethod

__all__ = ["ArtifactPipeline", "first_pictures", "size_pixels"]

_PICTURES: Final = ("images", "frames")


class ArtifactPipeline:
    """The bundle's own pipeline.

    Args:
        bundle: The bundle.
        model: The pipeline folder, for components that the bundle leaves out; None where it leaves out none.
        methods: The bundle's methods, opened on the target.
        device: Where the components of that folder compute.
        calls: How many calls of its methods a run makes; None where nobody knows.
        progress: Shows the runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: Model | None,
        methods: Mapping[str, TargetMethod],
        device: torch.device,
        *,
        calls: int | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self._runtime = bundle.manifest.target.runtime
        self._progress = progress
        skeleton = open_skeleton(bundle, model=model, device=device)
        self._calls = calls
        self._task: Task | None = None
        attach(skeleton, methods, called=self._called)
        self._pipeline: Any = skeleton.pipeline

    def run(self, spec: RunSpec) -> tuple[Made, str]:
        """What it makes of a run, and what it failed with."""
        trajectory = Trajectory(self._pipeline)
        name = f"running the pipeline on {self._runtime}"
        with self._progress.task(name, self._calls, unit="calls") as self._task:
            products, error = attempt(
                self._pipeline, trajectory.arguments(spec.call), seed=spec.seed
            )
        return Made(products, trajectory.final), error

    def _called(self) -> None:
        if self._task is not None:
            self._task.advance(1)


def first_pictures(products: Products) -> Any:
    """The pictures or frames that a pipeline made; None where it made none."""
    return next((products[name] for name in _PICTURES if name in products), None)


def size_pixels(products: Products) -> tuple[int, int] | None:
    """Height and width of the pictures; None where there are none."""
    pictures = first_pictures(products)
    if pictures is None or pictures.ndim < 3:
        return None
    height, width = pictures.shape[-3:-1]
    return height, width
