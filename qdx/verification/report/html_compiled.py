"""The engines of a component that were built and not run: what each was compiled for, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.backends.compiled import WAY_WORDS, WAYS
from qdx.exporter.text.words import size
from qdx.verification.report.format import thousands
from qdx.verification.report.markup import Markup, details, escaped, table
from qdx.verification.stored.measurements import StoredCompiled

__all__ = ["engines_tables"]

_MEMORY: Final = ("weights", "between layers", "scratch")


def engines_tables(component: str, compiled: StoredCompiled) -> Iterator[Markup]:
    """A table of what the engines of a component are, one of their memory, and attentions that are not fused."""
    engines = compiled.engines.items()
    yield table(
        (
            "graph",
            "compiled by",
            "for",
            "layers",
            *(WAY_WORDS[way] for way in WAYS),
            "attention fused",
        ),
        [
            (
                where,
                one.built_by,
                one.built_for,
                thousands(sum(one.layers.values())),
                *(thousands(one.ways.get(way, 0)) for way in WAYS),
                f"{one.attentions_fused} of {one.attentions}",
            )
            for where, one in engines
        ],
        caption=f"{component}: quantized operations, by the way in which they were compiled",
        numbers=tuple(range(3, 3 + len(WAYS) + 2)),
    )
    yield table(
        ("graph", "engine", *_MEMORY),
        [
            (
                where,
                size(one.size_bytes),
                size(one.weights_bytes),
                size(one.activation_bytes),
                size(one.scratch_bytes),
            )
            for where, one in engines
        ],
        caption=f"{component}: memory that an engine takes on the device",
        numbers=tuple(range(1, 2 + len(_MEMORY))),
    )
    apart = [
        (Markup(f"<code>{escaped(each.name)}</code>"), where, each.kernel)
        for where, one in engines
        for each in one.attentions_apart
    ]
    if apart:
        listed = table(("attention", "graph", "softmax in"), apart, caption="Attention in parts")
        yield details(f"{component}: {len(apart)} attentions that are not fused", listed)
