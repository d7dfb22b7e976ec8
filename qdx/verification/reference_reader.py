"""Reading a stored reference: every byte checked, and that it is of the bundle which is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue, ValidationError

from qdx.bundle.resolution import restored
from qdx.cache.entry import check_entry
from qdx.cache.keys import key_of
from qdx.exporter.capture.recorded_call import restore_call
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.ir.spec import TensorSpec
from qdx.exporter.limits import REFERENCE_FILES_LIMIT
from qdx.exporter.plan.resolve.resolution import Resolution
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.verification.measure.recorded_run import RecordedRun
from qdx.verification.measure.samples import RunSpec
from qdx.verification.measure.stored_graph import StoredGraph, StoredModel, Values
from qdx.verification.reference_record import (
    CONTENTS,
    KIND,
    OTHER_SHAPE,
    VALUES,
    Contents,
    GraphRecord,
    identity_for,
    kind_of,
    run_folder,
)

if TYPE_CHECKING:
    import torch

    from qdx.bundle.reader import Bundle
    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.plan.schema.plan import Plan

__all__ = ["StoredReference", "read_reference"]

_PARTS: Final = {
    "target": "for another target",
    "model": "of another model",
    "call": "of another pipeline call",
    "quantization": "of another quantization",
}


@dataclass(frozen=True)
class StoredReference:
    """A reference that was read and fits its bundle.

    Attributes:
        name: Of its folder.
        specs: What was run.
        recorded: The runs.
        other_shape: A run at a second shape; None for artifacts of static shapes.
        model: The quantized graphs; None of a bundle that is not quantized.
        memory: What they answered.
        versions: Of what computed it.
    """

    name: str
    specs: tuple[RunSpec, ...]
    recorded: tuple[RecordedRun, ...]
    other_shape: RecordedRun | None
    model: StoredModel | None
    memory: Memory
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def read_reference(path: Path, bundle: Bundle, plan: Plan) -> StoredReference:
    """Reads a stored reference, every byte checked, for the bundle that it is of.

    Args:
        path: The folder.
        bundle: What it must be of.
        plan: The bundle's.

    Raises:
        InvalidInput: It is none, was altered, or is of another bundle.
        StorageError: Reading failed.
    """
    if not path.is_dir() or kind_of(path) != KIND:
        raise InvalidInput(
            f"{quoted(path)}: not a stored reference, expected a folder that `qdx verify --save-reference` wrote",
            hint="store one where the model is: qdx verify BUNDLE --model MODEL --save-reference DIR",
        )
    contents = _contents(path)
    expected = identity_for(bundle)
    for part, words in _PARTS.items():
        if contents.identity.get(part) != expected[part]:
            raise InvalidInput(
                f"{quoted(path)}: is {words} than {quoted(bundle.path.name)}",
                hint="store a reference of this bundle: qdx verify BUNDLE --model MODEL --save-reference DIR",
            )
    try:
        check_entry(path, KIND, key_of(expected), files_limit=REFERENCE_FILES_LIMIT)
    except InvalidInput as bad:
        raise InvalidInput(
            f"{bad.message}: the reference was altered", hint="store the reference again"
        ) from bad
    folder = TensorFolder(path / VALUES)
    kept = AnswersRead(folder, {one.key: dict(one.outputs) for one in contents.answers})
    return StoredReference(
        path.name,
        tuple(RunSpec(restore_call(one.call), one.seed) for one in contents.specs),
        tuple(RecordedRun.read(path / run_folder(number)) for number in range(len(contents.specs))),
        RecordedRun.read(path / OTHER_SHAPE) if contents.other_shape else None,
        None if contents.sites is None else _model(contents, folder, bundle, plan),
        kept,
        contents.versions,
    )


class AnswersRead:
    """What quantized graphs answered, out of a reference; see `Memory`.

    Args:
        folder: Of tensors.
        answers: Digests by key.
    """

    def __init__(self, folder: TensorFolder, answers: Mapping[str, Mapping[str, str]]) -> None:
        self._folder = folder
        self._answers = answers

    def recall(self, parts: Mapping[str, JsonValue]) -> Mapping[str, torch.Tensor] | None:
        """See `Memory`."""
        found = self._answers.get(key_of(parts))
        return None if found is None else dict(StoredTensors(self._folder, found))

    def keep(self, parts: Mapping[str, JsonValue], tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps nothing: a reference is as it was stored."""


def _contents(path: Path) -> Contents:
    source = path / CONTENTS
    value = load_json(source, error=InvalidInput)
    try:
        return Contents.model_validate_json(dump_json(value))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{quoted(source)}: {quoted(key)}: {first['msg']}", hint="store the reference again"
        ) from None


def _model(contents: Contents, folder: TensorFolder, bundle: Bundle, plan: Plan) -> StoredModel:
    manifest = bundle.manifest
    assert contents.sites is not None, "a bundle that is not quantized"
    sites = {
        where: [Site(**one.model_dump()) for one in graph]
        for where, graph in contents.sites.items()
    }
    components = [Resolution(**dict(record)) for record in manifest.resolution]
    resolved = restored(manifest.resolved, plan, manifest.target.name, components, sites)
    return StoredModel(resolved, {one.where: _restored(one, folder) for one in contents.graphs})


def _restored(graph: GraphRecord, folder: TensorFolder) -> StoredGraph:
    return StoredGraph(
        where=graph.where,
        macs=graph.macs,
        identity=graph.identity,
        inputs=tuple(TensorSpec(one.name, one.dtype, one.shape, one.pairs) for one in graph.inputs),
        sources={one.name: one.source for one in graph.quantizers},
        places={one.name: one.place for one in graph.quantizers},
        shapes={one.name: one.shape for one in graph.quantizers},
        calls={
            one.index: Values(
                StoredTensors(folder, dict(one.given)), StoredTensors(folder, dict(one.outputs))
            )
            for one in graph.calls
        },
        why_not=graph.why_not,
    )
