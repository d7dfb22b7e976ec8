"""Small folders of every pipeline class that the installed diffusers exports, and a small call of each."""

from __future__ import annotations

from tests.support.every.build import Case, make_case, pipeline_classes

__all__ = ["Case", "make_case", "pipeline_classes"]
