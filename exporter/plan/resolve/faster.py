"""What a target judges by where a rule holds only where it is faster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from qdx.exporter.graph.ir.site import Site

__all__ = ["attention_of", "compared_macs"]

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


def attention_of(site: Site) -> str:
    """Returns a name that both products of an attention share; that of no other site."""
    return _PRODUCT.sub("*", site.key) if site.is_attention_product else site.key
