"""The process that compiles engines, see `qdx.exporter.child`: the builder's crashes and its memory are its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qdx.backends.tensorrt.engine.ahead import compile_engine
from qdx.backends.tensorrt.engine.package import tensorrt
from qdx.backends.tensorrt.flavour import flavour_of
from qdx.backends.tensorrt.recipe import parse_recipe
from qdx.exporter.child import serve
from qdx.exporter.errors import InternalError, QdxError, first_line

__all__ = ["main"]


def main() -> None:
    """Answers until the input ends."""
    serve(_answer)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        if "flavour" in request:
            return {"version": tensorrt(flavour_of(request["flavour"])).__version__}
        recipe = parse_recipe(request["recipe"].encode(), source="the recipe")
        engine, layers = Path(request["engine"]), Path(request["layers"])
        for path in (engine, layers):  # where a process ended amid them, this one is asked again
            path.unlink(missing_ok=True)
        return asdict(compile_engine(Path(request["model"]), recipe, engine, layers))
    except QdxError:
        raise
    except Exception as error:  # the builder's bindings may raise anything
        words = f"{type(error).__name__}: {first_line(error)}"
        raise InternalError(f"the builder of engines: {words}") from error


if __name__ == "__main__":
    main()
