"""Bundles: manifest, atomic writer, digests, reader."""

from __future__ import annotations

from qdx.bundle.manifest import Manifest
from qdx.bundle.reader import Bundle, read_bundle
from qdx.bundle.writer import BundleWriter

__all__ = ["Bundle", "BundleWriter", "Manifest", "read_bundle"]
