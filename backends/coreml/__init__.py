"""Core ML: `lower` writes packages, `mil` computes what they say, `run` opens them, `refuse` says what cannot be done.

Importing this imports `coremltools`, silently; see `package`.
"""

from __future__ import annotations

from qdx.backends.coreml.lower import package as package  # which imports coremltools silently
