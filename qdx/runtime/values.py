"""Parameters that a bundle keeps beside its artifacts, because the pipeline's own Python reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from qdx.bundle.companions import VALUES_FILE
from qdx.exporter.capture.materialize import replace_parameters
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qdx.bundle.reader import Bundle

__all__ = ["load_values", "value_folders", "value_names"]


def load_values(module: nn.Module, folder: Path) -> None:
    """Gives a component without weights the parameters that lie beside its artifact.

    Raises:
        InvalidBundle: The file holds what is no parameter of the component.
        InvalidModel: The file is malformed.
        StorageError: It cannot be read.
    """
    path = folder / VALUES_FILE
    if not path.exists():
        return
    file = SafetensorsFile(path)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found: dict[str, nn.Parameter] = {}
    for name, stored in file.tensors.items():
        wanted = parameters.get(name)
        if wanted is None or tuple(stored.shape) != tuple(wanted.shape):
            raise InvalidBundle(
                f"{quoted(path)}: {quoted(name)} is no parameter of that shape of {type(module).__name__}",
                hint="export again",
            )
        given = nn.Parameter(file.read(name).to(wanted.dtype), requires_grad=False)
        found |= {other: given for other, one in parameters.items() if one is wanted}
    file.close()
    replace_parameters(module, found)


def value_names(bundle: Bundle) -> Mapping[str, tuple[str, ...]]:
    """Names of the parameters that a bundle keeps, by component.

    Raises:
        InvalidModel: A file is malformed.
        StorageError: One cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, folder in value_folders(bundle).items():
        file = SafetensorsFile(bundle.path / folder / VALUES_FILE)
        found[name] = tuple(file.tensors)
        file.close()
    return found


def value_folders(bundle: Bundle) -> Mapping[str, str]:
    """Folders of the bundle that hold such parameters, by component: of those with artifacts, and of those without a call."""
    folders = {
        **{name: name for name in bundle.manifest.omitted},
        **{
            name: next(iter(component.methods.values())).folder
            for name, component in bundle.manifest.components.items()
        },
    }
    return {
        name: folder
        for name, folder in folders.items()
        if (bundle.path / folder / VALUES_FILE).exists()
    }
