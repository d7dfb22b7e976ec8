"""Results of other tools, fitted to a pipeline: a plan, and the file of weights that `qdx export --weights` takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import load_json
from qdx.exporter.formats.given import GivenWeight, check_parts
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.ir.safetensors_file import Checkpoint, SafetensorsFile, open_checkpoint
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.importers import Imported
from qdx.exporter.plan.importers.draft import WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign_names import modules_of
from qdx.exporter.plan.importers.patterns import NoGlobError
from qdx.exporter.plan.schema.load import parse_plan
from qdx.exporter.strict_json import dump_json
from qdx.exporter.transforms.given import likeness_db
from qdx.exporter.transforms.given_file import Given
from qdx.importing.gguf_file import GgufFile
from qdx.importing.plans import Operations, fitted
from qdx.importing.result import Found, ResultReader, StoredResult
from qdx.importing.result_aimet import read_aimet
from qdx.importing.result_bitsandbytes import BitsAndBytesResult
from qdx.importing.result_gguf import read_gguf
from qdx.importing.result_quanto import QuantoResult
from qdx.importing.result_scaled import ScaledResult
from qdx.importing.result_torchao import TorchAoResult

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.weights import LazyWeight
    from qdx.targets.profile import TargetProfile

__all__ = [
    "READERS",
    "ImportedResult",
    "import_result",
    "open_result",
    "read_result",
    "result_tools",
]

READERS: Final[list[ResultReader]] = [
    TorchAoResult(),
    QuantoResult(),
    BitsAndBytesResult(),
    ScaledResult(),
]
"""Of safetensors files, in the order in which they are asked; GGUF is known by its first bytes."""
_GGUF: Final = "gguf"
_AIMET: Final = "aimet"
_PICKLES: Final = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl"})
_OTHER_LAYERS: Final = "no convolution or linear layer of the model has it as its weight"


@dataclass(frozen=True)
class ImportedResult:
    """What became of a folder of quantized weights.

    Attributes:
        imported: The plan, and what is exact, approximate and refused.
        given: The weights as they are stored; None where nothing can be carried.
    """

    imported: Imported
    given: Given | None


def result_tools() -> tuple[str, ...]:
    """The names that `--from` takes for folders and files of weights."""
    return (*(one.tool for one in READERS), _GGUF, _AIMET)


def read_result(path: Path, tool: str | None = None) -> tuple[str, Found]:
    """Takes the weights of a component's folder, or of one file, apart; arguments and errors are those of `open_result`."""
    name, read = open_result(path, tool)
    return name, read()


def open_result(path: Path, tool: str | None = None) -> tuple[str, Callable[[], Found]]:
    """Opens a component's folder, or one file: whose it is, and what takes its weights apart. No weight is read yet.

    Args:
        path: A folder with safetensors files, such a file, or a GGUF file.
        tool: Whose it is; None where the files say so.

    Raises:
        InvalidInput: The files are malformed, are pickles, or do not say whose they are.
        UsageError: No tool has that name.
    """
    if tool is not None and tool not in result_tools():
        raise UsageError(
            f"--from: {quoted(tool)} is not a tool whose weights are read",
            hint=f"there are {choices(result_tools())}",
        )
    if path.suffix in _PICKLES:
        raise InvalidInput(
            f"{quoted(path)}: a pickle, which is a program; qdx reads none",
            hint="where you trust it, load it in PyTorch and save its tensors with safetensors",
        )
    if path.suffix == f".{_GGUF}" or tool == _GGUF:
        return _GGUF, partial(read_gguf, GgufFile(path))
    stored = _opened(path)
    fitting = [one for one in READERS if (one.tool == tool if tool else one.recognizes(stored))]
    if not fitting:
        raise InvalidInput(
            f"{quoted(path)}: does not say which tool quantized it",
            hint=f"say it with --from: {choices(result_tools())}",
        )
    return fitting[0].tool, partial(fitting[0].read, stored)


def _opened(path: Path) -> StoredResult:
    if path.is_dir():
        checkpoint = open_checkpoint(path, mapped=True)
        config = load_json(path / "config.json") if (path / "config.json").is_file() else {}
    else:
        checkpoint, config = Checkpoint([SafetensorsFile(path)], [path], mapped=True), {}
    metadata = {key: text for one in checkpoint.shards for key, text in one.metadata.items()}
    return StoredResult(path, checkpoint, metadata, config)


def import_result(
    path: Path,
    operations: Operations,
    weights: Mapping[str, Mapping[str, LazyWeight]],
    *,
    tool: str | None = None,
    component: str | None = None,
    profile: TargetProfile | None = None,
) -> ImportedResult:
    """Makes a plan and given weights of what another tool has quantized.

    Args:
        path: See `read_result`.
        operations: Of the float pipeline.
        weights: Its parameters, by component.
        tool: Whose it is; None where the files say so.
        component: The component that it is about; None for the denoiser.
        profile: A target, whose refusals count as refused; None for any.

    Raises:
        InvalidInput: The files are malformed, or none of their weights is one of the model.
        UsageError: No tool has that name, or no component.
    """
    name = _component(component, operations)
    known, sites = weights[name], operations.of(name)
    if tool == _AIMET:
        found = read_aimet(path, known)
    else:
        tool, found = read_result(path, tool)
    draft = Draft(name, sites)
    draft.findings += found.findings
    modules: dict[str, list[str]] = {}
    for site in sites:
        if site.weight is not None and site.op in WEIGHTED:
            modules.setdefault(site.weight, []).append(site.fqn)
    fitting: dict[str, GivenWeight] = {}
    likeness: dict[str, float] = {}
    for place, parameter, one in _renamed(found, known, draft):
        if parameter not in modules:
            draft.refuse(place, _OTHER_LAYERS)
            continue
        try:
            check_parts(known[parameter].shape, one.quantization, one.parts)
        except ValueError as bad:
            draft.refuse(place, f"does not fit {quoted(parameter)}: {bad}")
            continue
        found_db = likeness_db(one, known[parameter])
        if not found_db > 0:
            draft.refuse(
                place,
                f"{found_db:.1f} dB against {quoted(parameter)}, and zeros would have 0: it is of another model",
            )
            continue
        likeness[parameter] = found_db
        fitting[parameter] = one
    _rules(fitting, modules, likeness, draft, str(path))
    data = draft.to_plan(_plan_name(path), f"Weights that {tool} has quantized, as they are.")
    plan = parse_plan(dump_json(data).decode(), source="the imported plan")
    imported = fitted(Imported(tool, plan, tuple(draft.findings)), operations, profile)
    kept = _kept(imported, operations, name, fitting)
    return ImportedResult(imported, Given(tool, {name: kept}) if kept else None)


def _component(component: str | None, operations: Operations) -> str:
    if component is not None:
        if component not in operations.components:
            raise UsageError(
                f"--component: {quoted(component)} is none of the pipeline",
                hint=f"there are {choices(operations.components)}",
            )
        return component
    found = [name for name, kind in operations.kinds.items() if kind == "denoiser"]
    if len(found) != 1:
        raise UsageError(
            f"the pipeline has {len(found)} denoisers",
            hint="say with --component whose weights these are",
        )
    return found[0]


def _renamed(
    found: Found, known: Mapping[str, LazyWeight], draft: Draft
) -> Iterator[tuple[str, str, GivenWeight]]:
    """Yields weights under the names of the model: those of original checkpoints are translated, fused rows divided."""
    for place, one in found.weights.items():
        try:
            modules = modules_of(place.removesuffix(".weight"))
        except NoGlobError as bad:
            draft.refuse(place, str(bad))
            continue
        parameters = [f"{module}.weight" for module in modules]
        missing = [name for name in parameters if name not in known]
        if missing:
            draft.refuse(place, f"the model has no {quoted(missing[0])}")
            continue
        if len(parameters) == 1:
            yield place, parameters[0], one
            continue
        rows = [known[name].shape[0] for name in parameters]
        if sum(rows) != one.parts[""].shape[0]:
            draft.refuse(place, f"{one.parts[''].shape[0]} rows, expected {rows} of {', '.join(map(quoted, parameters))}")  # fmt: skip
            continue
        for name, part in zip(parameters, _divided(one, rows), strict=True):
            yield place, name, part


def _divided(one: GivenWeight, rows: Sequence[int]) -> Iterator[GivenWeight]:
    """The rows of a weight, apart; a scale of the tensor goes with each."""
    cuts = {
        suffix: [part] * len(rows) if part.dim() == 0 else list(torch.split(part, list(rows)))
        for suffix, part in one.parts.items()
    }
    for index in range(len(rows)):
        yield replace(one, parts={suffix: parts[index] for suffix, parts in cuts.items()})


def _rules(
    fitting: Mapping[str, GivenWeight],
    modules: Mapping[str, Sequence[str]],
    likeness: Mapping[str, float],
    draft: Draft,
    source: str,
) -> None:
    """A rule for each kind of quantizer, and how far its weights are from those of the model."""
    kinds: dict[WeightQuantization, list[str]] = {}
    for name, one in fitting.items():
        kinds.setdefault(one.quantization, []).append(name)
    for quantization, names in kinds.items():
        scheme = _scheme(quantization)
        keys = [module for name in names for module in modules[name]]
        draft.rule("given", op=WEIGHTED, modules=keys, weights=scheme)
        ranked = sorted((likeness[name], name) for name in names)
        least, worst = ranked[0]
        draft.exact(source, f"{len(names)} weights {quantization.dtype} by {quantization.granularity}; the least like the model's is {quoted(worst)} with {least:.1f} dB")  # fmt: skip


def _scheme(quantization: WeightQuantization) -> dict[str, Any]:
    scheme: dict[str, Any] = {"dtype": quantization.dtype, "granularity": quantization.granularity}
    if quantization.block:
        scheme["block"] = quantization.block
    if quantization.dtype.startswith(("int", "uint")):
        scheme["symmetric"] = quantization.symmetric
    return scheme


def _kept(
    imported: Imported,
    operations: Operations,
    component: str,
    fitting: Mapping[str, GivenWeight],
) -> dict[str, GivenWeight]:
    """The weights that the plan still quantizes, once rules keep what a target refuses."""
    from qdx.exporter.plan.schema.selection import decide

    wanted: set[str] = set()
    for where, sites in operations.sites.items():
        if where.partition(".")[0] != component:
            continue
        kind = operations.kinds.get(component)
        for site, decision in zip(sites, decide(imported.plan, component, sites, kind), strict=True):  # fmt: skip
            asked = None if decision.weights is None else imported.plan.rules[decision.weights].asked_weights  # fmt: skip
            if asked is not None and asked.quantized and site.weight is not None:
                wanted.add(site.weight)
    return {name: one for name, one in fitting.items() if name in wanted}


def _plan_name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem)[:64] or "imported"
