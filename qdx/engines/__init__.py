"""Bundles whose engines are built on the machine that runs them."""
