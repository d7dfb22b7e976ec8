"""What the user insists on, and what of the plan that a search begins from is among the options that were analyzed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qdx.analyze.analysis import FLOAT_OPTION, Group
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.graph.ir.site import ROLES
from qdx.exporter.model_faults import choices
from qdx.search.problem import Allowed, Assignment, Problem

__all__ = ["Asked", "fixed_of", "never_float", "read_roles", "start_of"]

Asked = Sequence[int | None]
"""Of each group, the option that comes to what the plan asks of it; None where none does."""


def read_roles(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the roles that `--fix` names.

    Raises:
        UsageError: One is none that operations have.
    """
    for text in texts:
        if text not in ROLES:
            raise UsageError(
                f"--fix: {quoted(text)} is not a role", hint=f"roles are {choices(ROLES)}"
            )
    return tuple(dict.fromkeys(texts))


def start_of(problem: Problem, asked: Asked) -> Assignment | None:
    """The plan as an assignment; None where it asks for something that cannot be chosen."""
    found = [
        option
        for part, option in zip(problem.parts, asked, strict=True)
        if option is not None and any(choice.option == option for choice in part.choices)
    ]
    return tuple(found) if len(found) == len(problem.parts) else None


def fixed_of(groups: Sequence[Group], asked: Asked, roles: Sequence[str]) -> Mapping[int, Allowed]:
    """By place, the option of groups whose operations stay as the plan has them.

    Args:
        groups: Of the analysis.
        asked: What the plan asks of them.
        roles: Of operations that stay.

    Raises:
        UsageError: None of the options is what the plan asks, or no operation has one of the roles.
    """
    if not roles:
        return {}
    found: dict[int, Allowed] = {}
    for place, (group, option) in enumerate(zip(groups, asked, strict=True)):
        if not set(roles) & set(group.roles):
            continue
        if option is None:
            raise UsageError(
                f"--fix: none of the options analyzed is what the plan asks of {quoted(group.sites[0])}",
                hint="analyze with that option too",
            )
        found[place] = Allowed(frozenset({option}), "--fix keeps it")
    if not found:
        raise UsageError(f"--fix: no operation that was analyzed is one of {choices(roles)}")
    return found


def never_float(problem: Problem) -> Mapping[int, Allowed]:
    """By place, the options of every part that has another than float, without that."""
    quantized = (frozenset(c.option for c in p.choices) - {FLOAT_OPTION} for p in problem.parts)
    return {
        place: Allowed(options, "--no-float leaves it no other")
        for place, options in enumerate(quantized)
        if options
    }
