"""The dry run: a pipeline's own logic, with every component answering in zeros of the right shape.

Prompt encoding, schedulers and guidance run for real; a component's method runs on fake tensors, which
tells the shapes of what it returns. No weights are read and no arithmetic of the model is done.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from qdx.exporter.capture.calls import CallRecord, LiveCall, bind, describe, substitute
from qdx.exporter.capture.copies import copy_of
from qdx.exporter.capture.cost import bounded_tensors
from qdx.exporter.capture.fake_answers import FakeAnswers
from qdx.exporter.capture.pipeline_errors import pipeline_errors
from qdx.exporter.capture.randomness import seeded, with_generator, without_generators
from qdx.exporter.capture.skeleton import Skeleton
from qdx.exporter.capture.state import StateWatch
from qdx.exporter.capture.values_read import ValuesRead, check_no_gradient
from qdx.exporter.errors import InvalidModel, Refusal, TargetRefusal, quoted

# Classes whose methods are plumbing (loading, hooks, device moves), never a component's computation.
_PLUMBING = ("ModelMixin", "ConfigMixin", "PreTrainedModel", "PushToHubMixin")
_PLUMBERS = frozenset({"accelerate", "builtins", "huggingface_hub", "peft", "torch"})


def dry_run(
    skeleton: Skeleton, call: dict[str, Any], values: ValuesRead | None = None
) -> list[CallRecord]:
    """Runs the pipeline on fake components.

    Args:
        skeleton: The pipeline without weights.
        call: Arguments of the pipeline's `__call__`, complete.
        values: Finds the parameters whose values the pipeline's own Python reads, and gives it these.

    Returns:
        Every outermost component call, in order.

    Raises:
        UsageError: The pipeline rejects these arguments.
        InvalidModel: The pipeline fails for another reason, or calls no component.
        TargetRefusal: It reads or asks for what no artifact gives, such as attention maps or gradients.
    """
    return (values or ValuesRead(skeleton)).run(lambda: _run_once(skeleton, call))


def _run_once(skeleton: Skeleton, call: dict[str, Any]) -> list[CallRecord]:
    records: list[CallRecord] = []
    zeros = FakeAnswers(skeleton)
    copies: dict[object, nn.Module | None] = {}
    authors: WeakIdKeyDictionary = WeakIdKeyDictionary()
    written: list[torch.Tensor] = []

    def answer(given_call: LiveCall) -> Any:
        call = without_generators(given_call)
        check_no_gradient(call)
        key = (call.where, repr(call.state))
        if key not in copies:
            copies[key] = None if call.module is None else copy_of(call.module, name=call.component)
        given = call.arguments
        described = pytree.tree_map(describe, given)
        _check_unwritten(call, written)
        found, run = zeros.answer(call)
        written.extend(call.leaves[name] for name in run.written)
        reads = frozenset(authors[leaf] for leaf in _tensors(given) if leaf in authors)
        answered = _tensors(found)
        shapes = tuple(tuple(tensor.shape) for tensor in answered)
        for tensor in answered:
            authors[tensor] = call.component
        records.append(
            CallRecord(
                call.component,
                call.method,
                substitute(described, dict(run.fixed)),
                outputs=shapes,
                reads=reads,
                state=call.state,
                module=copies[key],
                fixed=run.fixed,
                reads_results=run.reads_results,
                varied=_varied(call),
            )
        )
        return found

    name = skeleton.folder.pipeline_class
    errors = pipeline_errors(
        skeleton.folder,
        rejected=f"{name} rejects the call",
        failed=f"the dry run of {name} failed",
        call_hint="name the pipeline's arguments with --call, for example "
        '--call \'{"prompt": "a red circle", "height": 512, "width": 512}\'',
        model_hint="check that the folder runs in diffusers, and choose its arguments with --call",
    )
    with errors, intercept(skeleton.modules, answer), bounded_tensors(), seeded(0):
        skeleton.pipeline(**with_generator(skeleton.pipeline, call))
    if not records:
        raise InvalidModel(f"`{skeleton.folder.path}`: the pipeline called none of its components")
    return records


def _check_unwritten(call: LiveCall, written: Iterable[torch.Tensor]) -> None:
    """Refuses a call that takes what an earlier one wrote into its arguments, as caches of keys and values are.

    Raises:
        TargetRefusal: An argument shares memory with one that was written into.
    """
    taken = [place for place in map(_memory, written) if place]
    for name, leaf in call.leaves.items():
        place = _memory(leaf) if isinstance(leaf, torch.Tensor) else range(0)
        if any(max(place.start, one.start) < min(place.stop, one.stop) for one in taken):
            reason = "takes what an earlier call wrote into its arguments, as into a cache"
            raise TargetRefusal(
                f"{quoted(call.where)}: {quoted(name)} {reason}, and an artifact writes into none",
                refusals=(Refusal(call.where, reason),),
                hint="leave the component out of the export with --components: it then runs in PyTorch",
            )


def _memory(tensor: torch.Tensor) -> range:
    """The addresses from a tensor's first to its last element; none of a tensor without values."""
    if isinstance(tensor, FakeTensor) or tensor.is_meta or not tensor.numel():
        return range(0)
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    elements = 1 + sum((size - 1) * stride for size, stride in pairs)
    return range(tensor.data_ptr(), tensor.data_ptr() + elements * tensor.element_size())


Answer = Callable[[LiveCall], Any]


@contextmanager
def intercept(modules: dict[str, nn.Module], answer: Answer) -> Iterator[None]:
    """`route` for the duration of a context."""
    undo = route(modules, answer)
    try:
        yield
    finally:
        undo()


def _varied(call: LiveCall) -> frozenset[str]:
    """Names of the vectors that hold several values."""
    return frozenset(
        name
        for name, leaf in call.leaves.items()
        if isinstance(leaf, torch.Tensor) and leaf.dim() == 1 and bool((leaf != leaf[:1]).any())
    )


def route(modules: dict[str, nn.Module], answer: Answer) -> Callable[[], None]:
    """Routes every outermost call of a component's public methods through `answer`.

    Args:
        modules: Components by name; nothing else of them changes.
        answer: Gets the call; its result is what the caller sees.

    Returns:
        A function that undoes it.
    """
    depth = 0
    watch = StateWatch(modules)

    def redirect(
        name: str, module: nn.Module, method: str, earlier: Callable[..., Any] | None
    ) -> Callable[..., Any]:
        original = getattr(module, method)
        changes = partial(watch.changes, name)

        def routed(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if depth or not _has_tensor((args, kwargs)):
                return original(*args, **kwargs)
            depth += 1
            try:
                arguments = bind(original, args, kwargs)
                return answer(LiveCall(name, method, original, arguments, module, changes))
            finally:
                depth -= 1

        # torch's compiler would trace into what answers, which is no computation of the component's.
        uncompiled: Callable[..., Any] = torch.compiler.disable(routed)  # type: ignore[no-untyped-call]  # torch does not annotate it
        uncompiled.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]  # pipelines look at it
        uncompiled.behind = earlier  # type: ignore[attr-defined]  # copies of the module are not routed
        return uncompiled

    # A method may be routed already: then calls take both ways, the later one first.
    patched = [
        (name, module, method, module.__dict__.get(method))
        for name, module in modules.items()
        for method in public_methods(type(module))
    ]
    for name, module, method, earlier in patched:
        module.__dict__[method] = redirect(name, module, method, earlier)

    def undo() -> None:
        for _, module, method, earlier in patched:
            if earlier is None:
                module.__dict__.pop(method, None)
            else:
                module.__dict__[method] = earlier

    return undo


def public_methods(cls: type) -> list[str]:
    """The methods that a model class itself adds: `forward`, `encode`, `decode`, and the like."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        if base.__name__ in _PLUMBING or base.__module__.split(".")[0] in _PLUMBERS:
            continue
        if "Mixin" in base.__name__:
            continue
        for name, value in vars(base).items():
            if not name.startswith("_") and inspect.isfunction(value):
                found.setdefault(name)
    return list(found)


def _has_tensor(tree: Any) -> bool:
    return bool(_tensors(tree))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
