"""Rules that decide nothing are mistakes: which ones, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from qdx.exporter.errors import InvalidPlan, UsageError, quoted
from qdx.exporter.graph.ir.kind import Kind
from qdx.exporter.graph.ir.site import ATTENTION_PRODUCTS, Site
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import SITE_KEYS, Rule, matches
from qdx.exporter.plan.schema.selection import has_inputs, name_of, selects

__all__ = ["check_reach"]

_NAMES_SHOWN = 8
_LATER = "rules are read in order and the last match wins: put the general rule first"

Sites = Sequence[tuple[str, Site]]
"""Sites with their components."""


def check_reach(
    plan: Plan,
    components: Mapping[str, Kind | None],
    sites: Sites | None,
    storage: Mapping[str, int | None],
    decided: Mapping[tuple[str, str], set[int]],
) -> None:
    """Refuses a rule that decides nothing.

    Args:
        plan: The plan.
        components: All components of the pipeline with weights, and what each does; None where that is not known.
        sites: Sites of the traced ones with their components; None where nothing was traced.
        storage: Index of the rule that decides each component's storage.
        decided: Indices of the rules that decide for each site, by component and key.

    Raises:
        InvalidPlan: With line and column, and names near to what was written.
    """
    effective = set(storage.values()).union(*decided.values())
    for index, rule in enumerate(plan.rules):
        if index in effective:
            continue
        if sites is None and _kind_unknown(plan, index, components):
            continue
        taken = [name for name, kind in components.items() if rule.select.takes(name, kind)]
        if not taken:
            _refuse_without_component(plan, index, components)
        if _only_storage(rule):
            _refuse_unreached_components(plan, index, taken, storage)
        traced = {component for component, _ in sites or ()} & set(taken)
        if sites is not None and traced:
            every = traced == set(taken)
            inside = [pair for pair in sites if pair[0] in traced]
            _refuse_unreached_sites(plan, index, inside, decided, certain=every)


def _kind_unknown(plan: Plan, index: int, components: Mapping[str, Kind | None]) -> bool:
    """Whether no dry run told what components do, so that nothing can be said of a rule that selects by that.

    Raises:
        UsageError: The rule decides the storage of whole components, which cannot be told either.
    """
    rule = plan.rules[index]
    if rule.select.kind is None or any(components.values()):
        return False
    if _only_storage(rule):
        raise UsageError(
            f"{_place(plan, index, 'select', 'kind')}: what components do is found by running the pipeline dry",
            hint="`qdx plan show` does so",
        )
    return True


def _refuse_without_component(
    plan: Plan, index: int, components: Mapping[str, Kind | None]
) -> None:
    select = plan.rules[index].select
    words = f"{choices(select.component)} matches no component of the pipeline"
    hint = f"its components with weights are {', '.join(components) or 'none'}"
    if select.kind is not None and any(matches(name, select.component) for name in components):
        words = f"{choices(select.kind)} is the kind of no component that {choices(select.component)} matches"
        known = [f"{name} ({kind or 'not called'})" for name, kind in components.items()]
        hint = f"its components are {', '.join(known)}"
    raise InvalidPlan(f"{_place(plan, index)}: {words}", hint=hint)


def _only_storage(rule: Rule) -> bool:
    asked = rule.asked_weights
    return rule.select.by_component and asked is not None and not asked.quantized


def _refuse_unreached_components(
    plan: Plan, index: int, taken: Sequence[str], storage: Mapping[str, int | None]
) -> None:
    later = sorted({storage[name] or 0 for name in taken})
    raise InvalidPlan(
        f"{_place(plan, index)}: unreachable: later rules decide everything that "
        f"{choices(plan.rules[index].select.component)} matches ({', '.join(taken)}): "
        f"{', '.join(f'rules[{n}]' for n in later)}",
        hint=_LATER,
    )


def _refuse_unreached_sites(
    plan: Plan,
    index: int,
    inside: Sites,
    decided: Mapping[tuple[str, str], set[int]],
    *,
    certain: bool,
) -> None:
    """Refuses a rule that decides for no site of the components that it takes.

    Where later rules take all that it selects, it may still decide in components that were not
    traced, unless it is certain that there are none. Selecting nothing at all is a slip either way.
    """
    rule = plan.rules[index]
    chosen = [(name, site) for name, site in inside if selects(rule.select, site)]
    if not chosen and _speaks_of_absent_attention(rule, [site for _, site in inside]):
        return
    if not chosen:
        _refuse_unmatched(plan, index, [site for _, site in inside])
    weighted = rule.asked_weights is not None and any(site.weight for _, site in chosen)
    fed = rule.asked_inputs is not None and any(has_inputs(site) for _, site in chosen)
    if not weighted and not fed:
        lacking = "inputs to quantize" if rule.asked_weights is None else "weights"
        raise InvalidPlan(
            f"{_place(plan, index)}: none of the {len(chosen)} operations selected has {lacking}",
            hint=f"their kinds are {_listed({site.op for _, site in chosen})}",
        )
    if not certain:
        return
    later = sorted(set().union(*(decided[name, site.key] for name, site in chosen)))
    names = ", ".join(name_of(plan, n) for n in later)
    raise InvalidPlan(
        f"{_place(plan, index)}: unreachable: later rules decide all {len(chosen)} operations "
        f"that it selects: {names}",
        hint=_LATER,
    )


def _speaks_of_absent_attention(rule: Rule, sites: Sequence[Site]) -> bool:
    """Whether a rule is about attention, unless it says `always`, and nothing there has any.

    That is no slip: one plan then serves denoisers with and without attention.
    """
    named = set(rule.select.op or ())
    absent = not any(site.is_attention_product for site in sites)
    return rule.when != "always" and bool(named) and named <= ATTENTION_PRODUCTS and absent


def _refuse_unmatched(plan: Plan, index: int, sites: Sequence[Site]) -> None:
    select = plan.rules[index].select
    values = {
        "name": {site.key for site in sites},
        "op": {site.op for site in sites},
        "role": {site.role for site in sites},
        "stage": {site.stage for site in sites if site.stage},
    }
    for key in SITE_KEYS:
        globs = getattr(select, key)
        if globs is not None and not any(matches(value, globs) for value in values[key]):
            raise InvalidPlan(
                f"{_place(plan, index, 'select', key)}: {choices(globs)} matches the {key} of no "
                "operation",
                hint=_near(globs, values[key]),
            )
    raise InvalidPlan(
        f"{_place(plan, index, 'select')}: no operation has all that is selected at once",
        hint="each key alone matches some; leave one out, or use a rule for each",
    )


def _near(globs: Sequence[str], known: set[str]) -> str:
    plain = [glob.replace("*", "").replace("?", "") for glob in globs]
    # Long names differ mostly in their middles; the first few matches are enough.
    pool = sorted(known)
    near = [name for text in plain for name in difflib.get_close_matches(text, pool, n=3)]
    if near:
        return f"did you mean {_listed(dict.fromkeys(near))}?"
    return f"there are {_listed(known)}" if known else "no operation has one"


def _listed(names: set[str] | Mapping[str, None]) -> str:
    every = sorted(names) if isinstance(names, set) else list(names)
    more = f" and {len(every) - _NAMES_SHOWN} more" if len(every) > _NAMES_SHOWN else ""
    return ", ".join(quoted(name) for name in every[:_NAMES_SHOWN]) + more


def _place(plan: Plan, index: int, *path: str | int) -> str:
    return quoted(plan.place("rules", index, *path))
