"""Running the PyTorch reference with its calls on record, or finding such a run that was kept."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.materialize import is_converted
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.devices import CPU, describe_device
from qdx.exporter.errors import UsageError
from qdx.exporter.graph.ir.weights import load_buffers
from qdx.exporter.limits import BUNDLE_FILES_LIMIT
from qdx.exporter.progress import SILENT
from qdx.runtime.component_weights import ComponentWeights
from qdx.runtime.generate import Products, generate
from qdx.runtime.reference import RECORDED_CALLS, record_calls
from qdx.runtime.tensor_folder import TensorFolder
from qdx.runtime.values import value_names
from qdx.source.adapted import identity_of
from qdx.source.schedule import rehearse
from qdx.verification.measure.call_times import CallTimes
from qdx.verification.measure.outlook import REFERENCE, UNKNOWN, Outlook
from qdx.verification.measure.recorded_run import DamagedRun, RecordedRun
from qdx.verification.measure.run_identity import RunIdentity
from qdx.verification.measure.runs import size_pixels
from qdx.verification.measure.samples import RunSpec, Trajectory
from qdx.verification.measure.selection import steps_among

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from qdx.bundle.reader import Bundle
    from qdx.cache.store import Store
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.progress import Progress
    from qdx.verification.measure.answers import AnswersUse

__all__ = ["Reference", "ReferenceUse"]

_KIND: Final = "reference-runs"
# One less than the store's entries may have: its own listing.
_STORED_FILES_LIMIT: Final = BUNDLE_FILES_LIMIT - 1
# Where neither the user nor the bundle says how many steps: the pipeline's own number, up to this.
_STEPS_LIMIT: Final = 20
# The second shape asks whether the artifact computes right at other sizes, not over many steps.
_STEPS_AT_OTHER_SHAPE: Final = 2


@dataclass
class ReferenceUse:
    """Where the reference's runs came from, and what else PyTorch answered.

    Attributes:
        ran: Number of runs in PyTorch.
        cached: Number of runs that were taken from the cache.
        quantized: The same of calls of quantized graphs; None where there are none.
        notes: What a user should know of the cache, a line each.
    """

    ran: int = 0
    cached: int = 0
    quantized: AnswersUse | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """`reference: 1 run in PyTorch, 0 from the cache`."""
        runs = f"{self.ran} run{'' if self.ran == 1 else 's'}"
        head = f"reference: {runs} in PyTorch, {self.cached} from the cache"
        quantized = () if self.quantized is None else (str(self.quantized),)
        return "\n".join((head, *quantized, *self.notes))

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON data."""
        quantized = None if self.quantized is None else asdict(self.quantized)
        return {
            "ran": self.ran,
            "cached": self.cached,
            "quantized": quantized,
            "notes": list(self.notes),
        }


class Reference:
    """The PyTorch pipeline, and its runs. Weights are read when a run is not in the store.

    Args:
        folder: The pipeline.
        bundle: Components that it leaves out run in PyTorch on both sides, off the record. Its methods'
            inputs tell the variants of a method apart.
        work: A folder that takes the runs; it lasts as long as they are used.
        store: Keeps runs for other verifications; None keeps none.
        device: Where the components compute.
        times: Takes the seconds of every call that is computed; None keeps none.
        progress: Shows the runs.

    Attributes:
        pipeline: The diffusers pipeline.
        use: Where the runs came from so far.
    """

    def __init__(
        self,
        folder: PipelineFolder,
        bundle: Bundle,
        *,
        work: Path,
        store: Store | None = None,
        device: torch.device = CPU,
        times: CallTimes | None = None,
        progress: Progress = SILENT,
    ) -> None:
        manifest = bundle.manifest
        self._folder = folder
        self._kept: dict[str, RecordedRun | None] = {}
        self._skeleton: Skeleton | None = build_skeleton(folder)
        self._weights: ComponentWeights | None = None
        self.pipeline: Any = self._skeleton.pipeline
        self.use = ReferenceUse()
        self._left_out = frozenset(manifest.left_out)
        self._values = value_names(bundle)
        ports = [
            port
            for component in manifest.components.values()
            for method in component.methods.values()
            for port in method.inputs
        ]
        # An artifact with a table of timesteps answers no other schedule.
        self._whole_schedule = any(port.values for port in ports)
        self._identity = RunIdentity(
            source=identity_of(manifest),
            pipeline_class=folder.pipeline_class,
            graphs={
                f"{name}.{method}": entry.signature
                for name, component in manifest.components.items()
                for method, entry in component.methods.items()
            },
            left_out=manifest.left_out,
            keep=RECORDED_CALLS,
            device=describe_device(device),
            setup=folder.setup,
        )
        self._device = device
        self._work = work
        self._store = store
        self._times = times
        self._progress = progress

    def chosen_call(self, call: dict[str, Any], steps: int | None) -> dict[str, Any]:
        """The arguments with a number of steps where the pipeline takes one."""
        parameters = call_parameters(self.pipeline)
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

    def steps_of(self, spec: RunSpec) -> dict[str, tuple[int, ...]]:
        """How often each step of a run calls each method of the artifact, by `component.method`; nothing computes.

        Calls in a row with the same timestep are one step; calls without one are alone.

        Raises:
            UsageError: The pipeline does not take the call.
        """
        # Of its own: modules may keep what they have computed, and here that has no values.
        skeleton = build_skeleton(self._folder)
        for name, module in skeleton.modules.items():
            load_buffers(module, open_weights(skeleton.folder.components[name]))
        rehearsal = rehearse(skeleton, spec.call, self._identity.graphs)
        timesteps: dict[str, list[float | None]] = {}
        for where, timestep in rehearsal.calls:
            timesteps.setdefault(where, []).append(timestep)
        return {
            where: tuple(map(len, steps_among(list(enumerate(found)))))
            for where, found in timesteps.items()
        }

    def kept(self, spec: RunSpec) -> RecordedRun | None:
        """A run that the store has; it is read once."""
        key = self._identity.key(spec)
        if key is not None and key not in self._kept:
            self._kept[key] = self._find(key)
        return None if key is None else self._kept[key]

    @property
    def converted_bytes(self) -> int:
        """Of the largest component's weights that a run holds in memory of their own: in the model's dtype.

        Those that are stored in it are pages of their files.
        """
        skeleton = self._skeleton
        assert skeleton is not None, "the reference was released"
        return max(
            (
                sum(one.numel() * one.element_size() for one in module.parameters())
                for name, module in skeleton.modules.items()
                if is_converted(module, skeleton, name)
            ),
            default=0,
        )

    @property
    def parameters(self) -> dict[str, int]:
        """How many numbers the weights of each component are."""
        skeleton = self._skeleton
        assert skeleton is not None, "the reference was released"
        return {
            name: sum(one.numel() for one in module.parameters())
            for name, module in skeleton.modules.items()
        }

    def run(self, spec: RunSpec, outlook: Outlook = UNKNOWN) -> RecordedRun:
        """One run on record: that of the store, or a new one, which the store then has.

        Args:
            spec: The run.
            outlook: Told of every call.

        Raises:
            InvalidModel: A weight is missing, damaged or of another shape.
            StorageError: The disk refused.
            UsageError: The pipeline does not take the call.
        """
        key = self._identity.key(spec)
        found = self.kept(spec)
        if found is not None:
            self.use.cached += 1
            return found
        run = self._record(spec, outlook)
        self.use.ran += 1
        if key is not None:
            self._keep(key, run)
        elif self._store is not None:
            self._note("the reference's run is not kept: its call holds more than text and numbers")
        return run

    def run_altered(
        self, spec: RunSpec, altered: Callable[[torch.Tensor], torch.Tensor]
    ) -> RecordedRun:
        """A run in which the pipeline gets other answers than its components gave; nothing keeps it.

        Args:
            spec: The run.
            altered: What the pipeline gets for each tensor.

        Raises:
            StorageError: The disk refused.
        """
        return self._record(spec, UNKNOWN, altered=altered)

    def run_at_other_shape(self, spec: RunSpec, products: Products) -> RecordedRun:
        """A short run at another batch and size, on record."""
        other = other_call(self.pipeline, spec.call, size_pixels(products))
        if "num_inference_steps" in other and not self._whole_schedule:
            other["num_inference_steps"] = min(other["num_inference_steps"], _STEPS_AT_OTHER_SHAPE)
        return self.run(RunSpec(other, spec.seed))

    def release(self) -> None:
        """Lets go of the weights."""
        self.pipeline = self._skeleton = self._weights = None

    def _record(
        self,
        spec: RunSpec,
        outlook: Outlook,
        *,
        altered: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> RecordedRun:
        skeleton = self._skeleton
        assert skeleton is not None, "the reference was released"
        if self._weights is None:
            self._weights = ComponentWeights(
                skeleton,
                whole=self._left_out,
                values=self._values,
                device=self._device,
                progress=self._progress,
            )
        modules = {n: m for n, m in skeleton.modules.items() if n not in self._left_out}
        folder = TensorFolder(Path(tempfile.mkdtemp(dir=self._work)))
        trajectory = Trajectory(self.pipeline)
        with (
            self._progress.task(
                "running the PyTorch reference", outlook.calls_of_a_run, unit="calls"
            ) as task,
            self._weights.attached(),
        ):

            def told(where: str, seconds: float) -> None:
                outlook.measured(REFERENCE, where, seconds)
                if self._times is not None:
                    self._times.measured(REFERENCE, where, seconds)
                task.advance(1)

            try:
                products, records = record_calls(
                    modules,
                    lambda: generate(
                        self.pipeline, trajectory.arguments(spec.call), seed=spec.seed
                    ),
                    graphs=self._identity.graphs,
                    keep=RECORDED_CALLS,
                    folder=folder,
                    told=told,
                    altered=altered,
                )
            except (TypeError, ValueError) as error:
                name = type(self.pipeline).__name__
                raise UsageError(f"{name} rejects the call: {error}") from error
        return RecordedRun.write(folder, products, trajectory.final, records)

    def _find(self, key: str) -> RecordedRun | None:
        found = None if self._store is None else self._store.find(_KIND, key)
        if found is None:
            return None
        try:
            return RecordedRun.read(found)
        except DamagedRun:
            # Without the message: reports name no folder of the machine.
            self._note("a run of the cache was damaged and is made anew")
            return None

    def _keep(self, key: str, run: RecordedRun) -> None:
        if self._store is None:
            return
        files = list(run.path.iterdir())
        if len(files) > _STORED_FILES_LIMIT:
            self._note(f"the reference's run is not kept: it has {len(files)} files, "
                       f"the cache takes {_STORED_FILES_LIMIT}")  # fmt: skip
            return
        with self._store.adding(_KIND, key) as folder:
            for file in files:
                shutil.copyfile(file, folder / file.name)

    def _note(self, line: str) -> None:
        if line not in self.use.notes:
            self.use.notes.append(line)
