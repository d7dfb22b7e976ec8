"""The version of qdx, written once. Imports nothing."""

__version__ = "0.1.0"
