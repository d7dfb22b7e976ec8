"""Recipes in a bundle: how each of its graphs was quantized, beside the artifact that was made so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.bundle.companions import write_file
from qdx.exporter.errors import InternalError, InvalidBundle, InvalidInput, first_line, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.exporter.transforms.recipe import Recipe, prepared, quantized_graph

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["RECIPE_FILE", "TENSORS_FILE", "read_recipe", "rebuilt", "recipes_of", "write_recipe"]

RECIPE_FILE: Final = "quantization.json"
TENSORS_FILE: Final = "quantization.safetensors"


def rebuilt(graph: Graph, recipe: Recipe) -> tuple[Graph, Graph]:
    """The graphs that a recipe out of a bundle makes of a traced one.

    Returns:
        The float graph in the form that is quantized, and the quantized one.

    Raises:
        InvalidBundle: The recipe is that of another graph.
    """
    try:
        if recipe.where != graph.where:
            raise InternalError(f"it is for {quoted(recipe.where)}")
        floats = prepared(graph, recipe)
        return floats, quantized_graph(floats, recipe)
    except (InternalError, IndexError, KeyError, ValueError) as error:
        raise InvalidBundle(
            f"{quoted(graph.where)}: the recipe of quantization is that of another graph: {first_line(error)}",
            hint="export again",
        ) from error


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Writes a recipe beside the artifact that was made by it.

    Raises:
        StorageError: The disk refused.
    """
    write_file(folder / RECIPE_FILE, dump_json(recipe.to_json()))
    tensors = recipe.tensors()
    if tensors:
        from safetensors.torch import save

        write_file(folder / TENSORS_FILE, save(tensors))


def recipes_of(bundle: Bundle) -> dict[str, Recipe]:
    """The recipes of all graphs in a bundle that are quantized, by `component.method`.

    Raises:
        InvalidBundle: One is damaged.
    """
    found = {
        f"{name}.{method}": read_recipe(bundle.path / entry.folder)
        for name, component in bundle.manifest.components.items()
        for method, entry in component.methods.items()
    }
    return {where: recipe for where, recipe in found.items() if recipe is not None}


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe in a component's folder of a bundle; None for float artifacts.

    Raises:
        InvalidBundle: It is not one.
    """
    path = folder / RECIPE_FILE
    if not path.exists():
        return None
    tensors = {}
    if (folder / TENSORS_FILE).exists():
        from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

        try:
            stored = SafetensorsFile(folder / TENSORS_FILE)
            tensors = {name: stored.read(name) for name in stored.tensors}
        except InvalidInput as error:
            raise InvalidBundle(error.message, hint="export again") from error
        stored.close()
    data = load_json(path, error=InvalidBundle)
    try:
        return Recipe.from_json(data, tensors)
    except ValueError as error:
        raise InvalidBundle(
            f"{quoted(path)}: not a recipe of quantization: {error}", hint="export again"
        ) from error
