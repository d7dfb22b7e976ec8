"""Resolutions of sites as far as an audit reads them."""

from __future__ import annotations

from types import SimpleNamespace

from qdx.exporter.graph.ir.site import Site


def site(key, macs=100, form="native", *, op=None, quantized=True, weights=True):
    return SimpleNamespace(
        key=key,
        form=form,
        site=Site(
            key,
            key,
            key,
            op or ("linear" if weights else "qk"),
            "other",
            "",
            macs,
            weight=f"{key}.weight" if weights else None,
        ),
        segments=("int8",) if quantized else (),
        weights=SimpleNamespace(quantized=quantized) if weights else None,
    )
