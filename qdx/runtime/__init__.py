"""Running bundles: one as a diffusers pipeline, or its methods one by one."""

from qdx.runtime.methods import TargetMethod
from qdx.runtime.pipeline import attach, open_bundle, open_methods, open_pipeline, open_skeleton

__all__ = [
    "TargetMethod",
    "attach",
    "open_bundle",
    "open_methods",
    "open_pipeline",
    "open_skeleton",
]
