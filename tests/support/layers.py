"""Which module imports which, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("exporter", "targets", "backends", "qdx")
RUNTIMES = frozenset(
    {"coremltools", "nncf", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "polygraphy"}
)
# What each part may import of qdx; the front door may import everything.
_ALLOWED = {
    "exporter": ("exporter",),
    "targets": ("targets", "exporter"),
    "backends": ("backends", "targets", "exporter"),
}
# What backends share: the lowering to ONNX, and modules that stand beside the backends' folders.
_SHARED_BACKEND = "onnx"
# Rooms in their order: a module imports from its own room and from those above it in the list. The modules that stand
# in a part's own folder come first in the exporter; in `qdx` each is listed.
ROOMS = {
    "exporter": (
        "",
        "text",
        "graph",
        "graph/ir",
        "graph/analysis",
        "graph/execute",
        "graph/rewrites",
        "cost",
        "capture",
        "measure/metrics",  # of two tensors alone; plans name them in their gates
        "formats",
        "plan/schema",
        "plan/importers",
        "plan/resolve",
        "plan",
        "calibrate",
        "transforms",
        "measure",
    ),
    "qdx": (
        "_version",
        "bundle",
        "cache",
        "source",
        "runtime",
        "sweep",
        "calibration",
        "importing",
        "tune",
        "compile",
        "engines",
        "bench",
        "analyze",
        "doctor",
        "verification/measure",
        "verification/stored",
        "verification/judge",
        "verification/report",
        "verification",
        "search",
        "cli",
        "__init__",
        "__main__",
    ),
}


def source_files() -> list[Path]:
    """Every module of the package."""
    return sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))


def imports(source: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it, also for types only."""
    for module, name in _imports(ast.parse(source)):
        yield module
        if name:
            yield f"{module}.{name}"


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What is imported, and what of it, also for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "relative imports are not used"
            assert node.level == 0, "relative imports are not used"
            yield from ((node.module, alias.name) for alias in node.names)


def breaches(path: str, source: str) -> list[str]:
    """What a module at a path below the root imports against the order of the parts, or of the rooms in one."""
    parts = path.removesuffix(".py").split("/")
    found = [name for name in imports(source) if not _may(parts, name.split("."))]
    return found + [
        name
        for name in imports(source)
        if (imported := _path_of(name)) is not None and _runs_up(path, imported)
    ]


def circles(sources: dict[str, str]) -> list[str]:
    """Modules that import each other, however far around and also for types only; empty where there are none.

    Args:
        sources: Text of each module by its path below the root.
    """
    import graphlib

    arrows = {
        path: {
            imported
            for module, name in _imports(ast.parse(source))
            if (imported := _path_of(f"{module}.{name}") or _path_of(module)) in sources
        }
        - {path}
        for path, source in sources.items()
    }
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as circle:
        return list(circle.args[1])
    return []


def room_of(path: str) -> tuple[str, int] | None:
    """The part of a module and the place of its room in the order; None for parts without one.

    Raises:
        ValueError: The room is not listed.
    """
    part, _, inside = path.partition("/")
    if part not in ROOMS:
        return None
    folder = inside.rpartition("/")[0]
    room = folder if folder or part == "exporter" else inside.removesuffix(".py")
    return part, ROOMS[part].index(room)


def _runs_up(path: str, imported: str) -> bool:
    one, other = room_of(path), room_of(imported)
    return one is not None and other is not None and one[0] == other[0] and one[1] < other[1]


def _path_of(name: str) -> str | None:
    """The module that a dotted name imports, as a path; None for what is no module of qdx."""
    first, _, rest = name.partition(".")
    if first != "qdx":
        return None
    base = rest.replace(".", "/")
    own = base if base.split("/")[0] in PARTS else f"qdx/{base}".rstrip("/")
    for path in (f"{own}.py", f"{own}/__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


def _may(importer: list[str], imported: list[str]) -> bool:
    part = importer[0]
    if imported[0] != "qdx":
        return part not in {"exporter", "targets"} or imported[0] not in RUNTIMES
    if part == "qdx":
        return True
    if len(imported) == 1 or imported[1] not in _ALLOWED[part]:
        return False
    if part == "backends" and imported[1] == "backends" and len(imported) > 2:
        folder = ROOT / "backends" / imported[2]
        # What stands beside the folders is for all of them: the registry names its backends in words.
        own = {importer[1], _SHARED_BACKEND} if len(importer) > 2 else set()
        return not folder.is_dir() or imported[2] in own
    return True
