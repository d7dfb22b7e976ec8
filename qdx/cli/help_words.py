"""What help says beside the commands' own words: their groups, groups of options, examples and exit statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = [
    "COMMAND_GROUPS",
    "DEFAULT_COMMAND_GROUP",
    "DEFAULT_OPTION_GROUP",
    "EXAMPLES",
    "OPTION_GROUPS",
    "STATUSES",
    "STATUSES_OF",
    "USUAL_STATUSES",
    "option_group",
]

COMMAND_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Make": ("export", "calibrate", "analyze", "plan", "build"),
    "Run and check": ("run", "verify", "report", "bench"),
    "Look": ("inspect", "targets", "doctor"),
    "Keep": ("cache", "completion"),
}
DEFAULT_COMMAND_GROUP: Final = "Commands"
"""Of commands that are in no group, such as those of `qdx plan`."""

OPTION_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Input": (
        "--analysis",
        "--baseline",
        "--calib",
        "--call",
        "--from",
        "--gates",
        "--lora",
        "--model",
        "--plan",
        "--prompts",
        "--ranges",
        "--reference",
        "--setup",
        "--target",
        "--variant",
        "--weights",
    ),
    "What is computed": (),
    "Output": ("--force", "--halves", "--json", "--layout", "--output", "--report", "--save-reference", "--schema", "--timing-cache", "--toml"),
    "General": ("--debug", "--fresh", "--help", "--no-cache", "--quiet", "--verbose", "--version"),
}  # fmt: skip
DEFAULT_OPTION_GROUP: Final = "What is computed"
"""Of options that are in no group: most say what is computed."""

_CALL: Final = """--call '{"prompt": "a red circle", "num_inference_steps": 4}'"""
_EXPORT: Final = f"qdx export samples/shapes --target openvino --plan w8 {_CALL} -o out/shapes"
EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        _EXPORT,
        "qdx verify out/shapes --model samples/shapes --report out/report",
        "qdx run out/shapes --prompt 'a red circle' -o red.png",
    ),
    "export": (_EXPORT,),
    "calibrate": (
        f"qdx calibrate samples/shapes --plan w8a8 {_CALL} -o out/ranges.safetensors",
        "qdx export samples/shapes --target openvino --plan w8a8 --ranges out/ranges.safetensors -o out/w8a8",
    ),
    "analyze": (
        f"qdx analyze samples/shapes --target openvino --plan w8a8 --options int4,int8 --calls 1 {_CALL} -o out/analysis",
    ),
    "plan": ("qdx plan check w8a8 --model samples/shapes --target openvino",),
    "plan new": ("qdx plan new w8 -o out/plan.json",),
    "plan check": ("qdx plan check w8a8 --model samples/shapes --target openvino",),
    "plan show": ("qdx plan show w8a8 --model samples/shapes --target onnxruntime",),
    "plan search": (
        "qdx plan search samples/shapes --target openvino --analysis out/analysis --budget average_bits=6 --measurements 50 -o out/found.json",
    ),
    "plan import": ("qdx plan import samples/modelopt-fp8.json -o out/fp8.json",),
    "plan schema": ("qdx plan schema > out/plan.schema.json",),
    "build": (
        "qdx export samples/shapes --target tensorrt --plan float16 -o out/engines",
        "qdx build out/engines",
    ),
    "run": ("qdx run out/shapes --prompt 'a blue square' --seed 1 -o blue.png",),
    "verify": ("qdx verify out/shapes --model samples/shapes --report out/report",),
    "report": ("qdx report out/report",),
    "report show": ("qdx report show out/report --plan w8",),
    "report diff": ("qdx report diff out/report out/report",),
    "report index": ("qdx report index out",),
    "bench": ("qdx bench out/shapes --rounds 5",),
    "inspect": ("qdx inspect samples/shapes",),
    "targets": ("qdx targets openvino",),
    "doctor": ("qdx doctor",),
    "cache": ("qdx cache",),
    "cache clear": ("qdx cache clear",),
    "completion": ("qdx completion bash > out/qdx.bash",),
}
"""By command, the whole of it behind `qdx`. In the order of the table each works with what those before it wrote."""

STATUSES: Final[Mapping[str, str]] = {
    "0": "done",
    "1": "a gate failed",
    "2": "wrong usage, or an invalid plan, model or bundle",
    "3": "the target cannot do what the plan asks",
    "4": "a runtime is not installed or broken, or the device is missing",
    "5": "reading or writing failed, or memory does not suffice",
    "70": "a defect of qdx",
    "130": "interrupted (143: terminated)",
}
"""What each exit status means."""
USUAL_STATUSES: Final = ("0", "2", "5")
"""The exit statuses that matter for a command that is not in the table below."""
_WORKS: Final = ("0", "2", "3", "4", "5")
STATUSES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "": tuple(STATUSES),
    "export": _WORKS,
    "calibrate": ("0", "2", "4", "5"),
    "analyze": ("0", "2", "3", "5"),
    "plan check": ("0", "2", "3", "5"),
    "plan show": ("0", "2", "3", "5"),
    "plan search": ("0", "2", "3", "5"),
    "plan import": ("0", "2", "3", "5"),
    "build": _WORKS,
    "run": _WORKS,
    "verify": ("0", "1", "2", "4", "5"),
    "report": ("0", "1", "2", "5"),
    "report show": ("0", "1", "2", "5"),
    "report diff": ("0", "1", "2", "5"),
    "bench": ("0", "2", "4", "5"),
    "inspect": ("0", "1", "2", "4", "5"),
    "doctor": ("0", "4"),
}
"""The exit statuses that matter for a command, the whole of it behind `qdx`."""


def option_group(name: str) -> str:
    """The group of an option, by its long name."""
    found = (group for group, names in OPTION_GROUPS.items() if name in names)
    return next(found, DEFAULT_OPTION_GROUP)
