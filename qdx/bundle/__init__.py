"""Bundles: manifest, atomic writer, digests, reader."""
