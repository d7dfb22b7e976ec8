"""Which module imports which, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = ("exporter", "targets", "backends", "qdx")
RUNTIMES = frozenset({"coremltools", "nncf", "onnxruntime", "openvino", "tensorrt", "polygraphy"})
# What each part may import of qdx; the front door may import everything.
_ALLOWED = {
    "exporter": ("exporter",),
    "targets": ("targets", "exporter"),
    "backends": ("backends", "targets", "exporter"),
}
# What backends share: the lowering to ONNX, and modules that stand beside the backends' folders.
_SHARED_BACKEND = "onnx"


def source_files() -> list[Path]:
    """Every module of the package."""
    return sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it, also for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "relative imports are not used"
            assert node.level == 0, "relative imports are not used"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(path: str, source: str) -> list[str]:
    """What a module at a path below the root imports against the order of the layers."""
    parts = path.removesuffix(".py").split("/")
    return [name for name in imports(source) if not _may(parts, name.split("."))]


def _may(importer: list[str], imported: list[str]) -> bool:
    part = importer[0]
    if imported[0] != "qdx":
        return part not in {"exporter", "targets"} or imported[0] not in RUNTIMES
    if part == "qdx":
        return True
    if len(imported) == 1 or imported[1] not in _ALLOWED[part]:
        return False
    if part == "backends" and imported[1] == "backends" and len(importer) > 2 and len(imported) > 2:
        folder = ROOT / "backends" / imported[2]
        return not folder.is_dir() or imported[2] in {importer[1], _SHARED_BACKEND}
    return True
