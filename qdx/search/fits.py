"""Whether an analysis is one of the model, the target and the plan at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qdx.analyze.analysis import Analysis
from qdx.analyze.plan_digest import plan_digest
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.strict_json import dump_json

if TYPE_CHECKING:
    from qdx.exporter.plan import Plan
    from qdx.search.outcomes import Pipeline
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = [
    "cautions_of",
    "check_fits",
    "check_groups_fit",
    "check_model_fits",
    "check_plan_fits",
    "check_target_fits",
    "digest",
]


def check_fits(
    analysis: Analysis, source: TracedPipeline, profile: TargetProfile, base: Plan
) -> None:
    """Refuses an analysis of another model, for another target or upon another plan.

    Raises:
        UsageError: With what differs.
    """
    from qdx.source.same_model import digest_of

    check_target_fits(analysis, profile.name, digest(profile.model_dump(mode="json")))
    check_plan_fits(analysis, base.name or "", plan_digest(base))
    names = [*analysis.model.files]
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = digest_of(source.folder, name, source.cache)
        except (OSError, LookupError):
            continue
    check_model_fits(analysis, found)


def digest(value: Any) -> str:
    """Returns the SHA-256 of JSON data."""
    return hashlib.sha256(dump_json(value)).hexdigest()


def check_groups_fit(analysis: Analysis, pipeline: Pipeline) -> None:
    """Refuses an analysis with operations that the model does not have.

    Raises:
        UsageError: With the first of them.
    """
    known = {where: {site.key for site in sites} for where, sites in pipeline.sites.items()}
    for group in analysis.groups:
        for key in group.sites:
            if key not in known.get(group.where, ()):
                raise UsageError(
                    f"--analysis: {quoted(group.where)} of this model has no operation {quoted(key)}",
                    hint="analyze again: the file was changed, or another version wrote it",
                )


def cautions_of(
    analysis: Analysis, versions: Mapping[str, object], processor: str, *, of_time: bool
) -> list[str]:
    """What is different here from where the analysis was made, in words.

    Args:
        analysis: The analysis.
        versions: Of all that computes here.
        processor: Its name here.
        of_time: Whether times count.
    """
    found = [
        f"{name} {analysis.versions.get(name, 'of an unknown version')}, here {value}"
        for name, value in versions.items()
        if name != "qdx_sha256" and analysis.versions.get(name) != str(value)
    ]
    words = []
    if found:
        words.append(
            f"the analysis was made with {', '.join(found)}: what is measured here may differ from it"
        )
    machines = [] if analysis.latency is None else [t.machine for t in analysis.latency.graphs]
    others = {one.processor for one in machines if one is not None} - {processor}
    if of_time and others:
        words.append(
            f"times are those of {', '.join(sorted(others))}, where they were measured, and this is {processor}"
        )
    return words


def check_target_fits(analysis: Analysis, name: str, profile: str) -> None:
    """Refuses an analysis for another target.

    Args:
        analysis: The analysis.
        name: Of the target at hand.
        profile: Digest of its profile.

    Raises:
        UsageError: With both names.
    """
    if analysis.target.name != name:
        raise UsageError(
            f"--analysis: for target {quoted(analysis.target.name)}, and --target is {quoted(name)}",
            hint="analyze for this target: `qdx analyze MODEL --target TARGET -o DIR`",
        )
    if analysis.target.profile != profile:
        raise UsageError(
            f"--analysis: target {quoted(name)} has changed since",
            hint="analyze again: what it offers, or what that costs, may be different now",
        )


def check_model_fits(analysis: Analysis, files: Mapping[str, str]) -> None:
    """Refuses an analysis of another model.

    Args:
        analysis: The analysis.
        files: SHA-256 of the model's files by relative path, those that the analysis names among them.

    Raises:
        UsageError: With the first file that differs.
    """
    for path, expected in analysis.model.files.items():
        found = files.get(path)
        if found != expected:
            what = "is not there" if found is None else "is another file"
            raise UsageError(
                f"--analysis: of another model: {quoted(path)} {what}",
                hint="analyze this model: `qdx analyze MODEL --target TARGET -o DIR`",
            )


def check_plan_fits(analysis: Analysis, name: str, plan: str) -> None:
    """Refuses an analysis upon another plan.

    Args:
        analysis: The analysis.
        name: Of the plan at hand.
        plan: Its digest.

    Raises:
        UsageError: With both names.
    """
    if analysis.plan_base.plan != plan:
        upon = quoted(analysis.plan_base.name or "an unnamed plan")
        raise UsageError(
            f"--from: the analysis is upon {upon}, and this is {quoted(name or 'another')}",
            hint="analyze upon the plan that the search begins from: `qdx analyze … --plan PLAN`",
        )
