"""The names of forms, without what they do; see `qdx.exporter.graph.rewrites.forms`. Imports no torch."""

from __future__ import annotations

from typing import Literal

__all__ = ["Form"]

Form = Literal["bc1s", "bc11", "each"]
