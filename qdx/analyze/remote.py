"""The measurements of a session on other machines: what is sent there, and what makes them ready there.

A machine needs qdx and the model's folder at the same path. Traced graphs and quantized weights it makes itself; the
recorded inputs, ranges of activations and learned rounding come with the parcel, since their last bits depend on what
computed them. Each
job has the digest of all that its result depends on: a machine that would compute from anything else does not know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.analyze.analysis import Option
from qdx.analyze.calls import Moment, RecordedInputs
from qdx.analyze.ground import ground_of
from qdx.analyze.learned import Learned
from qdx.analyze.prepared import prepare
from qdx.analyze.survey import SINGLE, Survey, memory_for_values
from qdx.analyze.whole import Whole
from qdx.backends.registry import get_backend
from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.calibrate.ranges_file import dump_ranges, load_ranges
from qdx.exporter.capture.model import read_model
from qdx.exporter.capture.recorded_call import record_call, restore_call
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import replace_file
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT
from qdx.exporter.strict_json import dump_json, parse_json
from qdx.source.pipeline import trace_pipeline
from qdx.sweep.elsewhere import Request
from qdx.sweep.workers import available_cores
from qdx.targets.profile import TargetProfile

if TYPE_CHECKING:
    from qdx.analyze.ground import Ground
    from qdx.analyze.survey import Job
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.sweep.elsewhere import Answer, Parcel
    from qdx.sweep.results import Outcome

__all__ = ["open_parcel", "parcel_of", "probe_of"]

_ASKED, _RANGES, _TENSORS = "asked.json", "ranges.safetensors", "inputs.safetensors"
_LEARNED: Final = "learned.safetensors"
_PAIRS: Final = "pairs:"
"""Complex numbers, as pairs of real ones."""


def parcel_of(
    ground: Ground,
    survey: Survey,
    ranges: Ranges | None,
    workers: int | None,
    learned: Learned | None = None,
) -> Parcel:
    """What another machine needs beside the model's files.

    Args:
        ground: What the session rests on.
        survey: Its measurements.
        ranges: Of activations; None where no option needs any.
        workers: Processes of all machines together; None for one for each processor.
        learned: What options learned from calls; None where none does.

    Raises:
        UsageError: The pipeline is not in a folder.
    """
    from safetensors.torch import save

    source = ground.source
    if source.folder.live is not None or source.folder.adapters is not None:
        raise UsageError(
            "--engine ray: the pipeline is in memory, and other machines read it from its folder",
            hint="save it where all of them see it under the same path",
        )
    tensors: dict[str, torch.Tensor] = {}
    recorded = []
    for one in survey.recorded:
        inputs = []
        for call in one.inputs:
            names = {}
            for name in call:
                tensor = call[name]
                names[name] = tensor_digest(tensor)
                _put(tensors, names[name], tensor)
            inputs.append(names)
        recorded.append({"moment": asdict(one.moment), "inputs": inputs})
    asked = {
        "model": str(source.folder.path),
        "variants": {name: one.variant for name, one in source.folder.components.items()},
        "setup": [dict(step) for step in source.folder.setup],
        "call": record_call(source.call),
        "plan": ground.base.to_json(),
        "target": ground.given.model_dump(mode="json", by_alias=True),
        "options": [one.option.model_dump(mode="json", by_alias=True) for one in ground.offered],
        "components": list(dict.fromkeys(where.partition(".")[0] for where in ground.wheres)),
        "facts": dict(ground.facts),
        "recorded": recorded,
        "workers": workers,
    }
    parcel = {_ASKED: dump_json(asked, indent=None), _TENSORS: save(tensors)}
    if ranges is not None:
        parcel[_RANGES] = dump_ranges(ranges)
    if learned is not None and learned.codes:
        parcel[_LEARNED] = save({key: one.clone() for key, one in sorted(learned.codes.items())})
    return parcel


def probe_of(survey: Survey) -> tuple[Request, Mapping[str, Outcome]]:
    """A request that every machine computes first, and its results here: of each graph one step by the options of most sites."""
    by_where: dict[str, Job] = {}
    for job in survey.every:
        if job.group is not None:
            continue
        where = survey.recorded[job.recorded].moment.where
        best = by_where.get(where)
        # Those that quantize inputs are later, and computed by more kinds of kernels.
        if best is None or (job.recorded == best.recorded and _breadth(job) >= _breadth(best)):
            by_where[where] = job
    jobs = list(by_where.values())
    found = {job.key: survey.bench(survey.recorded[job.recorded]).noise(job.change) for job in jobs}
    body = {"kind": SINGLE, "keys": [job.key for job in jobs]}
    return Request(0, jobs[0].recorded, body), found


def open_parcel(parcel: Parcel) -> Answer:
    """Makes ready what `parcel_of` sent; an `Opener`.

    Raises:
        UsageError: This machine has another model or other versions.
        QdxError: The model cannot be read or traced here.
    """
    from safetensors.torch import load

    asked = parse_json(parcel[_ASKED].decode("ascii"), source=_ASKED, error=InvalidInput)
    folder = read_model(Path(asked["model"])).with_variants(
        {name: one for name, one in asked["variants"].items() if one is not None}
    )
    folder = folder.with_setup(check_setup(asked["setup"]))
    source = trace_pipeline(folder, restore_call(asked["call"]), opens_files=False)
    ground = ground_of(
        source,
        TargetProfile.model_validate_json(dump_json(asked["target"])),
        plan_from_json(asked["plan"], source="plan"),
        [Option.model_validate_json(dump_json(one)) for one in asked["options"]],
        asked["components"],
        SILENT,
    )
    _check_facts(asked["facts"], ground.facts)
    tensors = load(parcel[_TENSORS])
    recorded = [
        RecordedInputs(
            Moment(**{**row["moment"], "calls": tuple(row["moment"]["calls"])}),
            tuple(_taken(tensors, names) for names in row["inputs"]),
        )
        for row in asked["recorded"]
    ]
    backend = get_backend(ground.profile.runtime)
    ranges = _ranges(parcel.get(_RANGES))
    learned = Learned(codes=load(parcel[_LEARNED]) if _LEARNED in parcel else {})
    prepared = prepare(
        source, ground.planned, ground.offered, ranges, backend, ground.wheres, learned
    )
    here = min(asked["workers"] or available_cores(), available_cores())
    limit = memory_for_values(prepared, recorded, here, None)
    survey = Survey(prepared, ground.bound, recorded, key_of(dict(ground.facts)), limit)
    return _Answers(survey)


class _Answers:
    """Answers requests for single options and for whole assignments.

    Args:
        survey: The measurements.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._whole: Whole | None = None

    def __call__(self, body: Mapping[str, Any]) -> Mapping[str, Outcome]:
        if body["kind"] == SINGLE:
            return self._survey.answer(body)
        if self._whole is None:
            self._whole = Whole.of(self._survey, Path(), workers=1, progress=SILENT)
        return self._whole.answer(body)


def _breadth(job: Job) -> int:
    return len(job.change.keys)


def _put(tensors: dict[str, torch.Tensor], digest: str, tensor: torch.Tensor) -> None:
    if tensor.is_complex():
        digest, tensor = _PAIRS + digest, torch.view_as_real(tensor.resolve_conj())
    tensors.setdefault(digest, tensor.contiguous())


def _taken(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> Mapping[str, torch.Tensor]:
    return {
        name: tensors[digest]
        if digest in tensors
        else torch.view_as_complex(tensors[_PAIRS + digest])
        for name, digest in names.items()
    }


def _ranges(data: bytes | None) -> Ranges | None:
    if data is None:
        return None
    with TemporaryDirectory(prefix="qdx-ranges-") as folder:
        path = Path(folder) / _RANGES
        replace_file(path, data)
        return load_ranges(path)


def _check_facts(asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for what in ("versions", "files"):
        for name in sorted(asked[what].keys() | found[what].keys()):
            one, other = asked[what].get(name), found[what].get(name)
            if one != other:
                thing = quoted(name) if what == "files" else name
                raise UsageError(
                    f"--engine ray: {thing} here is {quoted(other)}, and {quoted(one)} where the command runs",
                    hint="all machines need the same model and the same versions",
                )
