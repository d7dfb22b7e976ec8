"""A bundle opened as the diffusers pipeline it came from, with components that run on the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from qdx.backends.registry import get_backend
from qdx.bundle.companions import BUFFERS_FILE
from qdx.bundle.reader import read_bundle
from qdx.bundle.target_options import checked_options
from qdx.exporter.capture.calls import LiveCall, constants
from qdx.exporter.capture.distributions import fill_output, flatten_output
from qdx.exporter.capture.dry_run import public_methods, route
from qdx.exporter.capture.fake_answers import fake_output
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import fill_weights
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.capture.values_read import asked_gradient
from qdx.exporter.capture.variants import choose_variant
from qdx.exporter.devices import CPU, choose_device, is_cpu
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.graph.ir.weights import load_buffers
from qdx.exporter.progress import SILENT, tell_nobody
from qdx.runtime.adapted_runner import without_adapters
from qdx.runtime.adapter_methods import offer_adapters
from qdx.runtime.caution import caution_of
from qdx.runtime.methods import TargetMethod
from qdx.runtime.obedience import check_state
from qdx.runtime.opened import refuse_without_effect
from qdx.runtime.placed_modules import ModulePlacer
from qdx.runtime.sizes import refuse_other_calls
from qdx.runtime.unchanged import Unchanged
from qdx.runtime.unusual_calls import tell_unusual_calls
from qdx.runtime.values import load_values, value_folders
from qdx.source.same_model import check_source, files_outside, read_source

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

    from qdx.bundle.reader import Bundle
    from qdx.exporter.capture.model import Model
    from qdx.exporter.progress import Progress
    from qdx.runtime.adapters import Adapters


def open(  # noqa: A001 - the public name
    path: Path | str,
    *,
    model: Model | None = None,
    threads: int | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> DiffusionPipeline:
    """Opens a bundle as a diffusers pipeline; schedulers, guidance and callbacks work as always.

    Example:
        The call is the one of diffusers::

            pipeline = qdx.open("bundle")
            image = pipeline("a cat", num_inference_steps=4).images[0]

    Args:
        path: The bundle.
        model: The original pipeline, as a folder or in memory; components that the bundle leaves out then run in
            PyTorch, and of a pipeline in memory its own classes are used.
        threads: Processor threads of the runtime, its default where None.
        device: Where those components compute: `cpu`, `cuda`, `cuda:1` or `auto`. The pipeline stays on the processor.
        progress: Shows the opening of components.

    Raises:
        InvalidBundle: The bundle is damaged or altered.
        InvalidModel: The model is not the one that the bundle was exported from.
        RuntimeMissing: The runtime is not installed, or there is no such device.
        UsageError: The bundle lacks components and `model` is not given.
    """
    chosen = choose_device(device, progress.say)
    return open_pipeline(
        read_bundle(path), model=model, threads=threads, device=chosen, progress=progress
    )


def open_pipeline(
    bundle: Bundle,
    *,
    model: Model | None = None,
    threads: int | None = None,
    device: torch.device = CPU,
    progress: Progress = SILENT,
) -> DiffusionPipeline:
    """Opens a bundle that was read; as `open`."""
    skeleton = open_skeleton(bundle, model=model, device=device, progress=progress)
    methods = open_methods(bundle, threads=threads, progress=progress)
    refuse_without_effect(skeleton, frozenset(bundle.manifest.components))
    unusual = tell_unusual_calls(skeleton.pipeline, bundle.manifest)
    adapters = offer_adapters(skeleton, bundle.manifest, methods)
    attach(skeleton, methods, adapters=adapters, observe=unusual.observe)
    refuse_other_calls(skeleton.pipeline, bundle.manifest)
    return skeleton.pipeline


def open_methods(
    bundle: Bundle, *, threads: int | None = None, progress: Progress = SILENT
) -> dict[str, TargetMethod]:
    """Every method in the bundle, opened on the target, by `component.method`; says what this machine does worse."""
    manifest = bundle.manifest
    options = checked_options(manifest)
    backend = get_backend(manifest.target.runtime)
    methods: dict[str, TargetMethod] = {}
    entries = [
        (f"{name}.{method}", entry)
        for name, component in manifest.components.items()
        for method, entry in component.methods.items()
    ]
    with progress.task(f"opening on {manifest.target.runtime}", len(entries)) as task:
        for where, entry in entries:
            opened = backend.open(bundle.path / entry.opened, options, threads=threads)
            runner = without_adapters(opened, entry.adapter_inputs)
            methods[where] = TargetMethod(
                where,
                tuple(entry.inputs),
                tuple(entry.outputs),
                entry.constants,
                runner,
                entry.state,
                entry.fixed,
            )
            task.advance(1)
    if caution := caution_of(bundle):
        progress.say(caution)
    return methods


def open_skeleton(
    bundle: Bundle,
    *,
    model: Model | None = None,
    device: torch.device = CPU,
    progress: Progress = SILENT,
) -> Skeleton:
    """The bundle's pipeline without anything that computes; components it lacks come from the model.

    Args:
        bundle: The bundle.
        model: The original pipeline, as a folder or in memory.
        device: Where components that come from it compute.
        progress: Shows the reading.

    Raises:
        InvalidBundle: The bundle names a component that its pipeline does not have.
        InvalidModel: What the bundle needs of the model is not what it was exported from.
        UsageError: The bundle lacks components and `model` is not given.
    """
    components = bundle.manifest.components
    folders = {
        name: next(iter(entry.methods.values())).folder for name, entry in components.items()
    }
    original = None if model is None else read_source(bundle.manifest, model)
    if original is None and bundle.manifest.needs_model:
        raise UsageError(
            f"`{bundle.path}`: cannot be opened without the pipeline that it was exported from: {bundle.manifest.needs_model}",
            hint="in Python, make that pipeline again and give it: qdx.open(bundle, model=pipeline)",
        )
    if original is None and bundle.manifest.left_out:
        names = ", ".join(bundle.manifest.left_out)
        raise UsageError(f"`{bundle.path}`: holds no {names}; they were left out of the export",
                         hint="give the original folder with --model, they then run in PyTorch")  # fmt: skip
    if original is not None and (original.live is not None or bundle.manifest.left_out):
        check_source(files_outside(bundle.manifest), original, progress=progress)
        _check_names(bundle, original.components)
        kept = {name: bundle.path / folder for name, folder in folders.items()}
        if original.live is None:
            original = original.with_folders(kept)
        skeleton = build_skeleton(original)
        _check_names(bundle, skeleton.modules)
        for name in bundle.manifest.left_out:
            fill_weights(skeleton.modules[name], skeleton, name)
        left_out = {name: skeleton.modules[name] for name in bundle.manifest.left_out}
        if not is_cpu(device):
            route(left_out, ModulePlacer(device, left_out).compute)
    else:
        skeleton = build_skeleton(
            read_pipeline_folder(bundle.path, folders=folders).with_setup(
                check_setup(bundle.manifest.setup)
            )
        )
        _check_names(bundle, skeleton.modules)
    for name, folder in folders.items():
        buffers = bundle.path / folder / BUFFERS_FILE
        if buffers.exists():
            load_buffers(skeleton.modules[name], SafetensorsFile(buffers))
    for name, folder in value_folders(bundle).items():
        load_values(skeleton.modules[name], bundle.path / folder)
    return skeleton


def _check_names(bundle: Bundle, known: Mapping[str, object]) -> None:
    """Refuses a bundle that names a component outside its pipeline."""
    for name in (*bundle.manifest.components, *bundle.manifest.left_out):
        if name not in known:
            raise InvalidBundle(
                f"`{bundle.path}`: {quoted(name)} is not a component of its pipeline, "
                f"which has {', '.join(known)}",
                hint="export again",
            )


def attach(
    skeleton: Skeleton,
    methods: Mapping[str, TargetMethod],
    *,
    called: Callable[[], None] = tell_nobody,
    adapters: Adapters | None = None,
    observe: Callable[[str, Mapping[str, torch.Tensor]], None] = tell_nobody,
    differentiable: bool = False,
) -> Callable[[], None]:
    """Makes the skeleton's components compute on the target; returns what undoes it.

    Args:
        skeleton: The pipeline.
        methods: What computes, by `component.method`.
        called: Told of every call of a component, when it is done.
        adapters: What is loaded into the artifacts; they know the scales that calls give. None for nothing.
        observe: Told of every call of a component before it computes: of which one, and of its tensors.
        differentiable: Whether the methods let gradients through.

    A call of a component that was changed since raises `UsageError`, and so does one through which a gradient is wanted.
    """
    templates: dict[tuple[str, str], Any] = {}
    components = {where.split(".")[0] for where in methods}
    modules = {
        name: module
        for name, module in skeleton.modules.items()
        if name in components or _has_no_weights(module)
    }
    signatures = {where: method.signature for where, method in methods.items()}
    unchanged: dict[str, Unchanged] = {}

    def answer(call: LiveCall) -> Any:
        if not differentiable:
            _check_no_gradient(call)
        if adapters is not None:
            call = adapters.prepared(call)
        where = choose_variant(signatures, call)
        if where is None:
            raise UsageError(f"`{call.where}`: is not in the bundle, which holds {', '.join(methods)}",
                             hint="export again with a --call that uses it")  # fmt: skip
        target = methods[where]
        unchanged[call.component].check(target.state)
        check_state(target, call)
        tensors = _tensors(target, call)
        observe(where, tensors)
        key = (where, repr(call.arguments.get("return_dict")))
        if key not in templates:
            templates[key] = fake_output(skeleton, call)
        outputs = _all_fields(templates[key], target(tensors))
        called()
        return fill_output(templates[key], outputs)

    undo = route(modules, answer)
    for name, module in modules.items():
        unchanged[name] = Unchanged(name, module, frozenset(public_methods(type(module))))

    def detach() -> None:
        undo()
        unchanged.clear()  # each knows the methods that know this: nothing else would let go of what computes

    return detach


def _has_no_weights(module: nn.Module) -> bool:
    """Whether it was built of a configuration alone: a part that the exported call never used."""
    return any(isinstance(one, FakeTensor) for one in module.parameters())


def _check_no_gradient(call: LiveCall) -> None:
    if name := asked_gradient(call):
        raise UsageError(
            f"`{call.where}`: a gradient with respect to `{name}` is asked for, and an artifact computes forward only",
            hint="call it under torch.no_grad(); what needs gradients runs with the original pipeline in diffusers",
        )


def _all_fields(template: Any, found: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """The tensors of an output in order; not-a-number for what an application's packages leave out."""
    fields = flatten_output(template)
    if not found.keys() <= fields.keys():
        return list(found.values())  # a bare tuple, in which fields have no names
    return [
        found[name] if name in found else torch.full(tuple(field.shape), torch.nan)
        for name, field in fields.items()
    ]


def _tensors(target: TargetMethod, call: LiveCall) -> dict[str, torch.Tensor]:
    """The call's tensors by name; refuses constants that differ from those of the export."""
    numbers = {port.argument for port in target.inputs}
    leaves = call.leaves
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    tensors |= {
        name: torch.tensor(leaves[name])
        for name in numbers
        if isinstance(leaves.get(name), int | float)
    }
    given = {
        name: value for name, value in constants(call.arguments).items() if name not in tensors
    }
    if given != target.constants:
        name = next(
            n for n in {**given, **target.constants} if given.get(n) != target.constants.get(n)
        )
        raise UsageError(
            f"`{target.where}`: `{name}` is {given.get(name)!r} in this call, "
            f"the artifact was exported with {target.constants.get(name)!r}",
            hint="export again with a --call like this one",
        )
    return tensors
