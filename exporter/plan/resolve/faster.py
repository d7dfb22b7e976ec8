"""Rules with `when: faster`: what stays float because low precision would not be faster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.selection import Decision

__all__ = ["attention_of", "compared_macs", "inputs_only_where_faster", "weights_only_where_faster"]

_PRODUCT: Final = re.compile(r"(?:qk|pv)(?=(?:#\d+)?$)")


def compared_macs(sites: Iterable[Site]) -> Mapping[str, int]:
    """Returns the multiply-accumulates by which a target judges each site of a graph, by key.

    Both products of an attention have those of the smaller one: one of them alone in low precision
    breaks the fused attention and gains nothing.
    """
    every = tuple(sites)
    smaller: dict[str, int] = {}
    for site in every:
        if site.is_attention_product:
            attention = attention_of(site)
            smaller[attention] = min(site.macs, smaller.get(attention, site.macs))
    return {site.key: smaller.get(attention_of(site), site.macs) for site in every}


def weights_only_where_faster(plan: Plan, decision: Decision) -> bool:
    """Whether the rule that decides a site's weights asks for it only where that is faster."""
    return decision.weights is not None and plan.rules[decision.weights].when == "faster"


def inputs_only_where_faster(plan: Plan, decision: Decision) -> bool:
    """The same for its inputs; with several rules for several timesteps, all of them must say so."""
    rules = [None if index is None else plan.rules[index] for index in decision.inputs]
    return bool(rules) and all(rule is not None and rule.when == "faster" for rule in rules)


def attention_of(site: Site) -> str:
    """Returns a name that both products of an attention share; that of no other site."""
    return _PRODUCT.sub("*", site.key) if site.is_attention_product else site.key
