"""Storing a reference: what PyTorch did in a verification becomes a folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.bundle.operations import rename_if_free
from qdx.bundle.rename import exchange
from qdx.bundle.staging import create_staging, remove_tree
from qdx.cache.entry import folder_size_bytes, write_listing
from qdx.cache.facts import images_digest
from qdx.cache.keys import key_of
from qdx.exporter.capture.recorded_call import record_call, restore_call
from qdx.exporter.errors import StorageError, UsageError, quoted
from qdx.exporter.files import dump_json
from qdx.exporter.limits import MIB, REFERENCE_FILES_LIMIT
from qdx.exporter.text.words import size
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.verification.measure.recorded_run import INDEX_NAME, RecordedRun
from qdx.verification.measure.samples import RunSpec
from qdx.verification.measure.stored_graph import AnswersKept, LockstepKept, StoredGraph
from qdx.verification.reference_record import (
    CONTENTS,
    KIND,
    OTHER_SHAPE,
    SCHEMA,
    VALUES,
    SiteRecord,
    identity_for,
    kind_of,
    run_folder,
)

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan

__all__ = ["LOCKSTEP_LIMIT_BYTES", "ReferenceWriter", "check_output"]

LOCKSTEP_LIMIT_BYTES: Final = 2048 * MIB
"""Of what quantizers were given, of all calls together. What stores and caches of CI take as one piece is about this much."""


class ReferenceWriter:
    """Takes what a verification does in PyTorch, and writes it as one folder.

    Args:
        output: The folder; it is free, or an earlier reference, which is replaced.
        bundle: Whose reference it is.
        work: A folder for tensors until then.
        memory: Keeps answers for other verifications; None keeps none.

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
    ) -> None:
        check_output(output, bundle)
        self._output = Path(os.path.abspath(output))  # noqa: PTH100 - the last part stays the user's name
        self._bundle = bundle
        (work / VALUES).mkdir()
        self._folder = TensorFolder(work / VALUES)
        self.answers = AnswersKept(self._folder, memory)
        self.lockstep = LockstepKept(self._folder, LOCKSTEP_LIMIT_BYTES)

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
            UsageError: A call holds pictures or tensors of the user, which are not stored, or there are too many tensors.
        """
        identity = identity_for(self._bundle)
        contents = {
            "schema": SCHEMA,
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
            self._check_count([*recorded, *([] if other_shape is None else [other_shape])])
            staging, lock = create_staging(self._output)
            try:
                for number, run in enumerate(recorded):
                    _copy_run(run, staging / run_folder(number))
                if other_shape is not None:
                    _copy_run(other_shape, staging / OTHER_SHAPE)
                if any(self._folder.path.iterdir()):
                    shutil.copytree(self._folder.path, staging / VALUES)
                (staging / CONTENTS).write_bytes(dump_json(contents))
                write_listing(staging, KIND, key_of(identity), files_limit=REFERENCE_FILES_LIMIT)
                size_bytes = folder_size_bytes(staging)
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

    def _check_count(self, runs: Sequence[RecordedRun]) -> None:
        """Refuses more files than whoever reads the reference lists."""
        count = sum(
            1
            for folder in (self._folder.path, *(run.path for run in runs))
            for _ in folder.iterdir()
        )
        if count > REFERENCE_FILES_LIMIT:
            raise UsageError(
                f"--save-reference: {count} files of tensors, expected at most {REFERENCE_FILES_LIMIT}",
                hint="take fewer --seeds, --prompts or --steps",
            )

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
                f"what the quantizers are given in a call takes {size(max(left_out))}, and a reference stores "
                f"{size(self.lockstep.limit_bytes)} of it"
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
    if not output.parent.is_dir():
        raise UsageError(
            f"--save-reference: {quoted(output.parent)} is no folder, expected the parent of the output",
            hint=f"make it first: mkdir -p {output.parent}",
        )
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise StorageError(
            f"--save-reference: {quoted(output.parent)}: no permission to write there",
            hint="choose a folder that you may write to",
        )
    if os.path.lexists(output) and kind_of(output) != KIND:
        raise UsageError(
            f"--save-reference: {quoted(output)} exists and is no reference, expected a free name",
            hint="choose another name, or remove it yourself",
        )


def _sites(resolved: ResolvedPlan) -> dict[str, list[dict[str, Any]]]:
    return {where: [_site(one.site) for one in graph] for where, graph in resolved.sites.items()}


def _site(site: Site) -> dict[str, Any]:
    """A site's fields as plain JSON data."""
    fields = {name: getattr(site, name) for name in SiteRecord.model_fields}
    return {**fields, "weight_shape": list(site.weight_shape), "ports": dict(site.ports)}


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
