"""Running both pipelines: the PyTorch reference with its calls on record, and the artifact's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.errors import UsageError
from qdx.runtime.pipeline import attach, open_skeleton
from qdx.verify.picture import Products, attempt, generate
from qdx.verify.reference import MethodRecord, record_calls
from qdx.verify.samples import Made, RunSpec, Trajectory

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.progress import Progress
    from qdx.runtime.methods import TargetMethod

__all__ = ["ArtifactPipeline", "Reference", "first_pictures", "size_pixels"]

# Where neither the user nor the bundle says how many steps: the pipeline's own number, up to this.
_STEPS_LIMIT: Final = 20
# The second shape asks whether the artifact computes right at other sizes, not over many steps.
_STEPS_AT_OTHER_SHAPE: Final = 2
_PICTURES: Final = ("images", "frames")


class Reference:
    """The PyTorch pipeline, and its runs.

    Args:
        folder: The pipeline.
        bundle: Components that it leaves out run in PyTorch on both sides, off the record.
        methods: The artifact's methods, whose inputs tell the variants of a method apart.
        keeps: How many calls to keep, for methods of which another number than usual is kept.
        progress: Shows the runs.
    """

    def __init__(
        self,
        folder: PipelineFolder,
        bundle: Bundle,
        methods: Mapping[str, TargetMethod],
        keeps: Mapping[str, int],
        progress: Progress,
    ) -> None:
        skeleton = load_pipeline(folder, progress=progress)
        self.pipeline: Any = skeleton.pipeline
        left_out = set(bundle.manifest.left_out)
        self._modules = {n: m for n, m in skeleton.modules.items() if n not in left_out}
        self._graphs = {
            where: frozenset(port.argument for port in method.inputs)
            for where, method in methods.items()
        }
        # An artifact with a table of timesteps answers no other schedule.
        self._whole_schedule = any(
            port.values for method in methods.values() for port in method.inputs
        )
        # An application's packages leave out what it does not read.
        self._fields = {
            where: {port.field for port in method.outputs}
            for where, method in methods.items()
            if bundle.manifest.layout is not None
        }
        self._keeps = keeps
        self._progress = progress

    def chosen_call(self, call: dict[str, Any], steps: int | None) -> dict[str, Any]:
        """The arguments with a number of steps where the pipeline takes one."""
        parameters = inspect.signature(self.pipeline.__call__).parameters
        if steps is not None:
            return {**call, "num_inference_steps": steps}
        if "num_inference_steps" not in parameters or call.get("num_inference_steps") is not None:
            return call
        default = parameters["num_inference_steps"].default
        usual = default if isinstance(default, int) else _STEPS_LIMIT
        return {**call, "num_inference_steps": min(usual, _STEPS_LIMIT)}

    def complete(self, call: dict[str, Any]) -> dict[str, Any]:
        """The call with everything that a run needs.

        Raises:
            UsageError: An argument is unknown to the pipeline.
        """
        return complete_call(self.pipeline, call)

    def run(self, spec: RunSpec) -> tuple[Made, dict[str, MethodRecord]]:
        """One run on record.

        Raises:
            UsageError: The pipeline does not take the call.
        """
        trajectory = Trajectory(self.pipeline)
        with self._progress.task("running the PyTorch reference"):
            try:
                products, records = record_calls(
                    self._modules,
                    lambda: generate(
                        self.pipeline, trajectory.arguments(spec.call), seed=spec.seed
                    ),
                    graphs=self._graphs,
                    keeps=self._keeps,
                )
            except (TypeError, ValueError) as error:
                name = type(self.pipeline).__name__
                raise UsageError(f"{name} rejects the call: {error}") from error
        kept = {where: record.only(self._fields.get(where)) for where, record in records.items()}
        return Made(products, trajectory.final), kept

    def run_at_other_shape(self, spec: RunSpec, products: Products) -> dict[str, MethodRecord]:
        """A short run at another batch and size, on record."""
        other = other_call(self.pipeline, spec.call, size_pixels(products))
        if "num_inference_steps" in other and not self._whole_schedule:
            other["num_inference_steps"] = min(other["num_inference_steps"], _STEPS_AT_OTHER_SHAPE)
        return self.run(RunSpec(other, spec.seed))[1]

    def release(self) -> None:
        """Lets go of the weights."""
        self.pipeline = None
        self._modules = {}


class ArtifactPipeline:
    """The bundle's own pipeline.

    Args:
        bundle: The bundle.
        model: The pipeline folder, for components that the bundle leaves out.
        methods: The bundle's methods, opened on the target.
        progress: Shows the runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: Path | str,
        methods: Mapping[str, TargetMethod],
        progress: Progress,
    ) -> None:
        self._runtime = bundle.manifest.target.runtime
        self._progress = progress
        skeleton = open_skeleton(bundle, model=model)
        attach(skeleton, methods)
        self._pipeline: Any = skeleton.pipeline

    def run(self, spec: RunSpec) -> tuple[Made, str]:
        """What it makes of a run, and what it failed with."""
        trajectory = Trajectory(self._pipeline)
        with self._progress.task(f"running the pipeline on {self._runtime}"):
            products, error = attempt(
                self._pipeline, trajectory.arguments(spec.call), seed=spec.seed
            )
        return Made(products, trajectory.final), error


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
