"""Only backends and targets know runtimes by name: what one of them does is asked of its backend, or read in its file."""

from __future__ import annotations

import re

import pytest

from tests.support.layers import ROOT

NAMES = re.compile(r"onnx ?runtime|openvino|core ?ml|tensorrt|nncf", re.IGNORECASE)
# What users type, by the module that shows it to them.
ALLOWED = {
    "qdx/__init__.py": 'target="openvino"',
    "qdx/cli/build.py": "a target such as `tensorrt`",
    "qdx/cli/export.py": "`swift`: Core ML packages",
    "qdx/cli/help_words.py": "qdx ",
    "qdx/cli/inspect.py": "a target such as `tensorrt`",
    "qdx/cli/usage.py": "such as --target openvino",
    "qdx/compile/export.py": "such as `openvino`",
}
# A plan names its quantizer, and has the settings of the one that is not ours.
PLANS = "exporter/plan/"


def named(path: str, text: str) -> list[str]:
    """Lines of a module that name a runtime, and may not."""
    if path.startswith(PLANS):
        return []
    allowed = ALLOWED.get(path)
    return [
        f"{path}:{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if NAMES.search(line) and (allowed is None or allowed not in line)
    ]


def modules() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for part in ("exporter", "qdx")
        for path in sorted((ROOT / part).rglob("*.py"))
    }


def test_no_module_outside_backends_and_targets_names_a_runtime():
    assert [line for path, text in modules().items() for line in named(path, text)] == []


def test_what_is_allowed_is_there():
    texts = modules()

    assert [path for path, allowed in ALLOWED.items() if allowed not in texts[path]] == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("qdx/engines/build.py", '    if bundle.manifest.target.runtime == "tensorrt":'),
        ("qdx/compile/notes.py", '    """What ONNX Runtime computes."""'),
        ("qdx/compile/export.py", "from qdx.backends.openvino.nncf.quantize import run"),
        ("exporter/formats/scales.py", "    # Core ML has no zero points"),
    ],
)
def test_a_planted_name_is_seen(path, line):
    assert named(path, f"x = 1\n{line}\n") == [f"{path}:2: {line.strip()}"]
