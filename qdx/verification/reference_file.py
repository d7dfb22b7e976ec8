"""A reference that is stored and shipped: what PyTorch did, so that a bundle is verified where its float model is not.

It is a folder like an entry of the cache: every file is listed with its digest. Who it is for is written beside: the model,
the call, the target and the quantization of one bundle, and none other takes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from qdx.bundle.operations import rename_if_free
from qdx.bundle.recipes import recipes_of
from qdx.bundle.rename import exchange
from qdx.bundle.resolution import restored
from qdx.bundle.staging import create_staging, remove_tree
from qdx.cache.entry import LISTING, check_entry, write_listing
from qdx.cache.facts import images_digest, tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.capture.recorded_call import record_call, restore_call
from qdx.exporter.errors import InvalidInput, StorageError, UsageError, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.ir.spec import TensorSpec
from qdx.exporter.limits import MIB
from qdx.exporter.plan.resolve.resolution import Resolution
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.source.adapted import identity_of
from qdx.verification.measure.recorded_run import INDEX_NAME, RecordedRun
from qdx.verification.measure.samples import RunSpec
from qdx.verification.measure.stored_graph import (
    AnswersKept,
    LockstepKept,
    StoredGraph,
    StoredModel,
    Values,
)

if TYPE_CHECKING:
    import torch

    from qdx.bundle.reader import Bundle
    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.plan.schema.plan import Plan

__all__ = [
    "LOCKSTEP_LIMIT_BYTES",
    "ReferenceWriter",
    "StoredReference",
    "check_output",
    "identity_for",
    "read_reference",
]

LOCKSTEP_LIMIT_BYTES: Final = 2048 * MIB
"""Of what quantizers were given, of all calls together. What stores and caches of CI take as one piece is about this much."""

_KIND: Final = "verification-reference"
_SCHEMA: Final = "qdx.verification-reference/1"
_CONTENTS: Final = "contents.json"
_VALUES: Final = "values"
_OTHER: Final = "run-other-shape"
_PARTS: Final = {
    "target": "for another target",
    "model": "of another model",
    "call": "of another pipeline call",
    "quantization": "of another quantization",
}

_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Tensors = tuple[tuple[str, _Digest], ...]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Spec(_Record):
    call: dict[str, JsonValue]
    seed: int


class _Site(_Record):
    key: str
    fqn: str
    node: str
    op: str
    role: str
    stage: str
    macs: _Count
    weight: str | None
    weight_shape: tuple[int, ...]
    ports: dict[str, int]
    channel_axis: int
    head: int
    product: str


class _Input(_Record):
    name: str
    dtype: str
    shape: tuple[int | str, ...]
    pairs: bool


class _Quantizer(_Record):
    name: str
    source: str
    place: str
    shape: tuple[int | None, ...]


class _LockstepCall(_Record):
    index: _Count
    given: _Tensors
    outputs: _Tensors


class _Graph(_Record):
    where: str
    macs: _Count
    identity: _Digest
    inputs: tuple[_Input, ...]
    quantizers: tuple[_Quantizer, ...]
    calls: tuple[_LockstepCall, ...]
    why_not: str


class _Answer(_Record):
    key: _Digest
    outputs: _Tensors


class _Contents(_Record):
    schema_: Literal["qdx.verification-reference/1"] = Field(alias="schema")
    identity: dict[str, JsonValue]
    specs: Annotated[tuple[_Spec, ...], Field(min_length=1)]
    other_shape: bool
    graphs: tuple[_Graph, ...]
    answers: tuple[_Answer, ...]
    sites: dict[str, tuple[_Site, ...]] | None
    versions: dict[str, str]


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


def identity_for(bundle: Bundle) -> dict[str, JsonValue]:
    """What a reference is of: each part by its name, to tell which of them is another."""
    manifest = bundle.manifest
    recipes = {
        where: key_of({
            "recipe": recipe.to_json(),
            "tensors": {name: tensor_digest(one) for name, one in recipe.tensors().items()},
        })
        for where, recipe in sorted(recipes_of(bundle).items())
    }  # fmt: skip
    source = {"pipeline": manifest.source.pipeline_class, "files": dict(identity_of(manifest))}
    call = {
        "call": dict(manifest.call),
        "setup": [dict(step) for step in manifest.setup],
        "shapes": manifest.shapes,
        "layout": manifest.layout,
        "left_out": list(manifest.left_out),
    }
    return {
        "target": manifest.target.name,
        "model": _digest(source),
        "call": _digest(call),
        "quantization": _digest({
            "recipes": recipes, "resolved": manifest.content_sha256.get("resolved", "")
        }),
    }  # fmt: skip


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json(dict(value))).hexdigest()


class ReferenceWriter:
    """Takes what a verification does in PyTorch, and writes it as one folder.

    Args:
        output: The folder; it is free, or an earlier reference, which is replaced.
        bundle: Whose reference it is.
        work: A folder for tensors until then.
        memory: Keeps answers for other verifications; None keeps none.
        limit_bytes: Of what quantizers are given, see `LOCKSTEP_LIMIT_BYTES`.

    Raises:
        UsageError: The output is taken by something else, or the bundle needs its model to be opened.
    """

    def __init__(
        self,
        output: Path,
        bundle: Bundle,
        work: Path,
        *,
        memory: Memory | None,
        limit_bytes: int = LOCKSTEP_LIMIT_BYTES,
    ) -> None:
        check_output(output, bundle)
        self._output = Path(os.path.abspath(output))  # noqa: PTH100 - the last part stays the user's name
        self._bundle = bundle
        (work / _VALUES).mkdir()
        self._folder = TensorFolder(work / _VALUES)
        self.answers = AnswersKept(self._folder, memory)
        self.lockstep = LockstepKept(self._folder, limit_bytes)

    def write(
        self,
        specs: tuple[RunSpec, ...],
        recorded: tuple[RecordedRun, ...],
        other_shape: RecordedRun | None,
        graphs: Mapping[str, StoredGraph],
        resolved: ResolvedPlan | None,
        versions: Mapping[str, str],
    ) -> int:
        """Writes the folder, whole or not at all.

        Args:
            specs: What was run.
            recorded: The runs.
            other_shape: The run at a second shape.
            graphs: The quantized graphs; what was kept of their calls is added.
            resolved: What the plan became of every site; None of a bundle that is not quantized.
            versions: Of what computed.

        Returns:
            Its size in bytes.

        Raises:
            StorageError: The disk refused.
            UsageError: A call holds pictures or tensors of the user, which are not stored.
        """
        identity = identity_for(self._bundle)
        contents = {
            "schema": _SCHEMA,
            "identity": identity,
            "specs": [{"call": _recorded(spec.call), "seed": spec.seed} for spec in specs],
            "other_shape": other_shape is not None,
            "graphs": [self._graph(graph) for graph in graphs.values()],
            "answers": [
                {"key": key, "outputs": _pairs(found)} for key, found in self.answers.kept.items()
            ],
            "sites": None if resolved is None else _sites(resolved),
            "versions": dict(versions),
        }
        try:
            staging, lock = create_staging(self._output)
            try:
                for number, run in enumerate(recorded):
                    _copy_run(run, staging / f"run-{number}")
                if other_shape is not None:
                    _copy_run(other_shape, staging / _OTHER)
                if any(self._folder.path.iterdir()):
                    shutil.copytree(self._folder.path, staging / _VALUES)
                (staging / _CONTENTS).write_bytes(dump_json(contents))
                write_listing(staging, _KIND, key_of(identity))
                size_bytes = sum(one.stat().st_size for one in staging.rglob("*") if one.is_file())
                self._publish(staging)
            finally:
                remove_tree(staging)
                os.close(lock)
        except OSError as bad:
            raise StorageError(
                f"--save-reference: {quoted(self._output)}: {bad.strerror or bad}",
                hint="choose a folder on a disk with room",
            ) from bad
        return size_bytes

    def _publish(self, staging: Path) -> None:
        staging.chmod(0o755)
        if rename_if_free(staging, self._output):
            return
        check_output(self._output, self._bundle)
        if not exchange(staging, self._output):
            # Between the two steps there is none: a reference can be made again.
            remove_tree(self._output)
            staging.rename(self._output)

    def _graph(self, graph: StoredGraph) -> dict[str, Any]:
        calls = self.lockstep.calls.get(graph.where, {})
        left_out = self.lockstep.left_out.get(graph.where, [])
        why = ""
        if left_out:
            why = (
                f"what the quantizers are given in a call takes {max(left_out) / MIB:.0f} MiB, and a reference stores "
                f"{self.lockstep.limit_bytes / MIB:g} MiB of it"
            )
        return {
            "where": graph.where,
            "macs": graph.macs,
            "identity": graph.identity,
            "inputs": [
                {"name": one.name, "dtype": one.dtype, "shape": list(one.shape), "pairs": one.pairs}
                for one in graph.inputs
            ],
            "quantizers": [
                {
                    "name": name,
                    "source": source,
                    "place": graph.places[name],
                    "shape": list(graph.shapes[name]),
                }
                for name, source in graph.sources.items()
            ],
            "calls": [
                {"index": index, "given": _pairs(one.given), "outputs": _pairs(one.outputs)}
                for index, one in sorted(calls.items())
            ],
            "why_not": why,
        }


def check_output(output: Path, bundle: Bundle) -> None:
    """Refuses a place for a reference, or a bundle that cannot be verified by one; before anything runs.

    Raises:
        UsageError: The place is taken by something else, or the bundle needs its model to be opened.
    """
    manifest = bundle.manifest
    needs = manifest.needs_model or ", ".join(manifest.left_out)
    if needs:
        raise UsageError(
            f"--save-reference: {quoted(bundle.path.name)} cannot be opened without its model ({needs}), so that no reference "
            "can stand for it",
            hint="verify it with --model wherever it is verified",
        )
    if output.resolve().is_relative_to(bundle.path.resolve()):
        raise UsageError(
            f"--save-reference: {quoted(output)} lies in the bundle, expected a folder elsewhere"
        )
    if not output.parent.is_dir():
        raise UsageError(
            f"--save-reference: {quoted(output.parent)} is no folder, expected the parent of the output",
            hint=f"make it first: mkdir -p {output.parent}",
        )
    if os.path.lexists(output) and _kind_of(output) != _KIND:
        raise UsageError(
            f"--save-reference: {quoted(output)} exists and is no reference, expected a free name",
            hint="choose another name, or remove it yourself",
        )


def _kind_of(folder: Path) -> object:
    try:
        return load_json(folder / LISTING, error=InvalidInput).get("kind")
    except InvalidInput:
        return None


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
    if not path.is_dir() or _kind_of(path) != _KIND:
        raise InvalidInput(
            f"{quoted(path)}: not a stored reference, expected a folder that `qdx verify --save-reference` wrote"
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
        check_entry(path, _KIND, key_of(expected))
    except InvalidInput as bad:
        raise InvalidInput(
            f"{bad.message}: the reference was altered", hint="store the reference again"
        ) from bad
    folder = TensorFolder(path / _VALUES)
    kept = AnswersRead(folder, {one.key: dict(one.outputs) for one in contents.answers})
    return StoredReference(
        path.name,
        tuple(RunSpec(restore_call(one.call), one.seed) for one in contents.specs),
        tuple(RecordedRun.read(path / f"run-{number}") for number in range(len(contents.specs))),
        RecordedRun.read(path / _OTHER) if contents.other_shape else None,
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


def _contents(path: Path) -> _Contents:
    source = path / _CONTENTS
    value = load_json(source, error=InvalidInput)
    try:
        return _Contents.model_validate_json(dump_json(value))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{quoted(source)}: {quoted(key)}: {first['msg']}", hint="store the reference again"
        ) from None


def _model(contents: _Contents, folder: TensorFolder, bundle: Bundle, plan: Plan) -> StoredModel:
    manifest = bundle.manifest
    assert contents.sites is not None, "a bundle that is not quantized"
    sites = {
        where: [Site(**one.model_dump()) for one in graph]
        for where, graph in contents.sites.items()
    }
    components = [Resolution(**dict(record)) for record in manifest.resolution]
    resolved = restored(manifest.resolved, plan, manifest.target.name, components, sites)
    return StoredModel(resolved, {one.where: _restored(one, folder) for one in contents.graphs})


def _restored(graph: _Graph, folder: TensorFolder) -> StoredGraph:
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


def _sites(resolved: ResolvedPlan) -> dict[str, list[dict[str, Any]]]:
    return {
        where: [
            {**{n: v for n, v in asdict_of(one.site).items()}, "weight_shape": list(one.site.weight_shape)}
            for one in graph
        ]
        for where, graph in resolved.sites.items()
    }  # fmt: skip


def asdict_of(site: Site) -> dict[str, Any]:
    """A site's fields; its ports as a plain object."""
    return {
        name: dict(site.ports) if name == "ports" else getattr(site, name)
        for name in _Site.model_fields
    }


def _recorded(call: dict[str, Any]) -> dict[str, Any]:
    """A call as it is stored.

    Raises:
        UsageError: It would come back as another.
    """
    recorded = record_call(call)
    if images_digest(restore_call(recorded)) != images_digest(call):
        raise UsageError(
            "--save-reference: the call has pictures or tensors of yours, and a reference stores none",
            hint="leave them out: the call of the bundle has seeded noise in their place",
        )
    return recorded


def _pairs(tensors: StoredTensors) -> list[list[str]]:
    return [[name, digest] for name, digest in tensors.digests.items()]


def _copy_run(run: RecordedRun, target: Path) -> None:
    """Copies the files of a run, and nothing that a cache put beside them."""
    target.mkdir()
    for file in sorted(run.path.iterdir()):
        if file.name == INDEX_NAME or file.suffix == ".safetensors":
            shutil.copyfile(file, target / file.name)
