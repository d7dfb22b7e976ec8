"""`qdx inspect --sites` of one component or role."""

from __future__ import annotations

from typing import Any

from qdx.exporter.errors import UsageError, quoted

__all__ = ["chosen_sites"]


def chosen_sites(
    graphs: list[dict[str, Any]], component: str | None, role: str | None
) -> list[dict[str, Any]]:
    """The sites of a component and of a role, which may be patterns as in a plan; all of them where neither is asked for.

    Raises:
        UsageError: There are none.
    """
    if component is None and role is None:
        return graphs
    from qdx.exporter.plan.schema.rule import matches

    components = {graph["graph"].partition(".")[0]: None for graph in graphs}
    roles = {site["role"]: None for graph in graphs for site in graph["sites"]}
    for name, asked, known in (("--component", component, components), ("--role", role, roles)):
        if asked is not None and not any(matches(one, (asked,)) for one in known):
            raise UsageError(
                f"{name}: {quoted(asked)} is not a {name[2:]} of this pipeline, expected one of "
                f"{', '.join(sorted(known))}"
            )
    found = []
    for graph in graphs:
        if matches(graph["graph"].partition(".")[0], _globs(component)):
            sites = [site for site in graph["sites"] if matches(site["role"], _globs(role))]
            found.append({**graph, "sites": sites})
    left = [graph for graph in found if graph["sites"]]
    if not left:
        raise UsageError(f"no operation of {quoted(component)} has the role {quoted(role)}")
    return left


def _globs(asked: str | None) -> tuple[str, ...] | None:
    return None if asked is None else (asked,)
