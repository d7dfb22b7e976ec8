"""What a path is that is no pipeline folder, and how to make one of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidModel, quoted
from qdx.exporter.files import near_path

__all__ = ["check_is_pipeline", "check_no_bundle", "is_hub_name", "no_pipeline"]

_INDEX: Final = "model_index.json"
_MANIFEST: Final = "qdx.json"
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CHECKPOINTS: Final = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})
_GGUF: Final = ".gguf"


def check_is_pipeline(path: Path | str) -> None:
    """Refuses a path that cannot be a pipeline folder, before anything heavy is imported.

    Raises:
        InvalidModel: It is no folder with an index, or a bundle; with what it is instead.
    """
    if not Path(path, _INDEX).is_file():
        raise no_pipeline(path)
    check_no_bundle(path)


def check_no_bundle(path: Path | str) -> None:
    """Refuses a bundle where a pipeline folder is wanted: it has the same index, and its weights are artifacts.

    Raises:
        InvalidModel: It is one.
    """
    if Path(path, _MANIFEST).is_file():
        raise _bundle(path)


def is_hub_name(path: Path | str) -> bool:
    """Whether a path is written as the hub writes the name of a model, `owner/name`."""
    return _HUB_NAME.fullmatch(str(path)) is not None


def no_pipeline(path: Path | str) -> InvalidModel:
    """The error of a path that is not the folder of a pipeline.

    Args:
        path: As the user named it.
    """
    place = Path(path)
    if place.is_dir():
        return _other_folder(place)
    if place.exists():
        return _file(place)
    near = near_path(place, _has_index)
    if near is not None:
        return InvalidModel(f"{quoted(path)} is not a folder", hint=f"did you mean {near}?")
    if is_hub_name(path):
        name = place.name
        return InvalidModel(
            f"{quoted(path)}: there is no such folder here; a model of that name on the hub is fetched first",
            hint=f"hf download {path} --local-dir {name}, then give {name}",
        )
    return InvalidModel(f"{quoted(path)} is not a folder",
                        hint="give the folder that holds model_index.json")  # fmt: skip


def _file(file: Path) -> InvalidModel:
    if file.name == _INDEX:
        return InvalidModel(f"{quoted(file)}: is a file, expected its folder",
                            hint=f"give {file.parent}")  # fmt: skip
    if file.suffix.lower() in {*_CHECKPOINTS, _GGUF}:
        return InvalidModel(
            f"{quoted(file)}: is a single file, expected the folder of a pipeline",
            hint=_from_single_file(file),
        )
    return InvalidModel(f"{quoted(file)} is not a folder",
                        hint="give the folder that holds model_index.json")  # fmt: skip


def _other_folder(folder: Path) -> InvalidModel:
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - without `..`, which would lead to another parent
    if _has_index(absolute.parent):
        return InvalidModel(
            f"{quoted(folder)}: holds one component, expected the folder of its pipeline",
            hint=f"give {folder.parent if folder.parent.name else absolute.parent}",
        )
    pipelines = [one for one in _folders(folder) if _has_index(one)]
    if len(pipelines) == 1:
        return InvalidModel(
            f"`{absolute / _INDEX}`: no such file; a diffusers pipeline folder has one",
            hint=f"give {pipelines[0]}, which has one",
        )
    if (folder / _MANIFEST).is_file():
        return _bundle(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in {*_CHECKPOINTS, _GGUF})
    message = f"`{absolute / _INDEX}`: no such file; a diffusers pipeline folder has one"
    if (folder / "modular_model_index.json").exists():
        return InvalidModel(
            f"{message}, and the folder of a modular pipeline names blocks instead",
            hint="save the pipeline as a plain one with `pipeline.save_pretrained(folder)` and give that folder",
        )
    if files and not (folder / "config.json").exists():
        return InvalidModel(f"{message}; {quoted(files[0].name)} is a single file",
                            hint=_from_single_file(files[0]))  # fmt: skip
    if folder == Path():
        return InvalidModel(
            message,
            hint="an empty name and `.` are the working folder: give the folder that holds model_index.json",
        )
    return InvalidModel(
        message,
        hint="save the pipeline with `pipeline.save_pretrained(folder)` and give that folder",
    )


def _bundle(path: Path | str) -> InvalidModel:
    return InvalidModel(
        f"{quoted(path)}: is a bundle that qdx exported, expected a diffusers pipeline folder",
        hint="give the folder that it was exported from",
    )


def _has_index(folder: Path) -> bool:
    """Whether a folder holds an index; what cannot be looked into does not, where the user named something else."""
    return os.path.isfile(folder / _INDEX)  # noqa: PTH113 - `Path.is_file` raises where it may not look


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, and the revisions in a folder of the hub's cache."""
    found = [one for place in (folder, folder / "snapshots") for one in _inside(place)]
    return [one for one in found if one.is_dir()]


def _inside(folder: Path) -> list[Path]:
    """What stands in a folder; nothing where it is none, or cannot be looked into."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _from_single_file(file: Path) -> str:
    if file.suffix.lower() == _GGUF:
        return (
            "weights in GGUF are quantized: take the original model, or make floats of them with diffusers, "
            f'`MODEL_CLASS.from_single_file("{file.name}", quantization_config=GGUFQuantizationConfig()).dequantize()`, '
            "and save a pipeline that holds the result"
        )
    return (
        f'load it with diffusers and save a folder: `PIPELINE_CLASS.from_single_file("{file.name}")'
        '.save_pretrained("FOLDER")`, with the class of the model, such as StableDiffusionXLPipeline; then give FOLDER'
    )
