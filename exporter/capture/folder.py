"""Reading a pipeline folder: which components it has and which library classes build them.

The folder is data from a stranger. Nothing in it may name code outside diffusers and transformers,
and nothing is imported here: classes are resolved by `resolve_class`, when somebody builds them.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qdx.exporter.capture.library_errors import environment_fault, library_errors
from qdx.exporter.errors import InvalidModel
from qdx.exporter.files import LINK_HINT, load_json, safe_child
from qdx.exporter.strict_json import CONFIG, JsonRules

INDEX_FILE = "model_index.json"
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_CONFIG_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json",
                 "preprocessor_config.json", "processor_config.json")  # fmt: skip
# What the bundle writes again as plain JSON: no infinity, which only schedulers' files hold.
_MODULE = JsonRules(big_ints=True)
# Keys with which a config asks its library to load code from elsewhere.
_CODE_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipelines", "_attn_implementation",
                        "_attn_implementation_internal", "attn_implementation"})  # fmt: skip


@dataclass(frozen=True)
class Component:
    """One entry of `model_index.json`.

    Attributes:
        name: The pipeline's argument, such as `unet`.
        library: `diffusers`, `transformers` or a module of `diffusers.pipelines`.
        class_name: The class in that library.
        path: The component's folder.
        config: Its parsed configuration; empty for tokenizers without one.
    """

    name: str
    library: str
    class_name: str
    path: Path
    config: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline folder whose every named class is one of diffusers or transformers.

    Attributes:
        path: The folder, absolute.
        pipeline_class: The pipeline's class in diffusers, such as `StableDiffusionPipeline`.
        components: The components that the index names, in its order; absent (null) ones are left out.
        absent: Names of optional components that the index sets to null.
        options: Further arguments of the pipeline's constructor, such as `force_zeros_for_empty_prompt`.
    """

    path: Path
    pipeline_class: str
    components: dict[str, Component]
    absent: tuple[str, ...]
    options: dict[str, Any]

    def with_folders(self, folders: Mapping[str, Path]) -> PipelineFolder:
        """The same pipeline with the configurations of these components read from other folders."""
        moved = {
            name: replace(self.components[name], path=path, config=_config(path))
            for name, path in folders.items()
        }
        return replace(self, components={**self.components, **moved})


def read_pipeline_folder(
    path: Path | str, *, folders: Mapping[str, str] | None = None
) -> PipelineFolder:
    """Reads `model_index.json` and every component's configuration; imports nothing.

    Args:
        path: The folder.
        folders: For components that lie in a folder of another name than their own.

    Raises:
        InvalidModel: The folder or a file is missing or broken, or names code that qdx will not load.
    """
    root = Path(path).absolute()
    if not root.is_dir():
        raise InvalidModel(f"`{path}` is not a folder",
                           hint="give the folder that holds model_index.json")  # fmt: skip
    index_path = root / INDEX_FILE
    if not index_path.exists():
        raise InvalidModel(
            f"`{index_path}`: no such file; a diffusers pipeline folder has one",
            hint="save the pipeline with `pipeline.save_pretrained(folder)` and give that folder",
        )
    index = load_json(index_path, rules=_MODULE)
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str) or not _IDENTIFIER.fullmatch(pipeline_class):
        raise InvalidModel(
            f"`{index_path}`: `_class_name` is {pipeline_class!r}, expected the name of a diffusers pipeline class",
            hint="pipelines that bring their own code are not loaded",
        )
    components: dict[str, Component] = {}
    absent: list[str] = []
    options: dict[str, Any] = {}
    for name, value in index.items():
        if name.startswith("_"):
            continue
        if not isinstance(value, list):
            options[name] = value
        elif value == [None, None]:
            absent.append(name)
        else:
            components[name] = _component(
                root, index_path, name, value, (folders or {}).get(name, name)
            )
    if not components:
        raise InvalidModel(f"`{index_path}`: names no component")
    return PipelineFolder(root, pipeline_class, components, tuple(absent), options)


def _component(
    root: Path, index_path: Path, name: str, value: list[Any], relative: str
) -> Component:
    """One checked entry of the index with its configuration."""
    where = f"`{index_path}`: component `{name}`"
    if not _IDENTIFIER.fullmatch(name):
        raise InvalidModel(f"{where}: not a usable name")
    if len(value) != 2 or not all(isinstance(part, str) for part in value):
        raise InvalidModel(f"{where} is {value!r}, expected [library, class]")
    library, class_name = value
    if not _IDENTIFIER.fullmatch(library) or not _IDENTIFIER.fullmatch(class_name):
        raise InvalidModel(
            f"{where} names {library!r}, {class_name!r}, expected a class of diffusers or transformers",
            hint="code that a model folder brings along is never run",
        )
    folder = safe_child(root, relative)
    if not folder.is_dir():
        raise InvalidModel(
            f"{where}: folder `{folder}` is missing",
            hint="the model folder is incomplete; save or fetch it again, and in a bundle's place give what it "
            "was exported from",
        )
    _refuse_links(folder)
    return Component(name, library, class_name, folder, _config(folder))


def _refuse_links(folder: Path) -> None:
    """Tokenizers open their files by themselves and would follow a link to a file outside."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise InvalidModel(f"`{path}`: is a symbolic link, expected a file", hint=LINK_HINT)


def _config(folder: Path) -> dict[str, Any]:
    """The component's configuration, refused where it asks for code."""
    for file_name in _CONFIG_FILES:
        path = folder / file_name
        if path.exists():
            config = load_json(path, rules=_MODULE if file_name == "config.json" else CONFIG)
            # A tokenizer's or processor's auto_map is only used with trust_remote_code, which qdx never sets;
            # for models it decides which code runs, so it is refused.
            named = sorted(_CODE_KEYS & config.keys()) if file_name == "config.json" else []
            if named:
                raise InvalidModel(
                    f"`{path}`: key `{named[0]}` asks for code or an implementation from outside",
                    hint="remove the key; qdx runs only classes of diffusers and transformers",
                )
            if file_name == "config.json":
                _check_backbone(path, config)
            if file_name == "config.json" and config.get("quantization_config"):
                raise InvalidModel(
                    f"`{path}`: `quantization_config` says that the weights are quantized already",
                    hint="take the original model, and quantize it with a plan",
                )
            return config
    return {}


def _check_backbone(path: Path, config: dict[str, Any]) -> None:
    """Refuses a model inside the model that is named and would have to be fetched."""
    fetched = ("use_pretrained_backbone", "use_timm_backbone")
    named = [key for key in fetched if config.get(key)]
    if isinstance(config.get("backbone"), str):
        named.append("backbone")
    if named:
        raise InvalidModel(
            f"`{path}`: key `{named[0]}` asks for a model from elsewhere",
            hint="a pipeline folder must hold everything that it is made of",
        )


def resolve_class(library: str, class_name: str, *, where: str) -> type:
    """The class of that name in diffusers or transformers, and in nothing else.

    Args:
        library: `diffusers`, `transformers`, or a package of `diffusers.pipelines` (that is how
            diffusers names classes that belong to one pipeline).
        class_name: The class.
        where: What to call the place in an error.

    Raises:
        InvalidModel: There is no such class, or it does not belong to these libraries.
    """
    module_name = (
        library if library in {"diffusers", "transformers"} else f"diffusers.pipelines.{library}"
    )
    failed = f"{module_name} cannot give class `{class_name}`"
    with library_errors(where, failed, hint="update diffusers and transformers"):
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise
            raise InvalidModel(
                f"{where}: library `{library}` is neither diffusers nor transformers",
                hint="code that a model folder brings along is never run",
            ) from error
        except AttributeError as error:
            if environment_fault(error) is not None:
                raise
            raise InvalidModel(
                f"{where}: the installed {module_name} has no class `{class_name}`",
                hint="check the spelling, or update diffusers and transformers",
            ) from error
    origin = getattr(found, "__module__", "")
    if not inspect.isclass(found) or origin.split(".")[0] not in {"diffusers", "transformers"}:
        raise InvalidModel(
            f"{where}: `{library}.{class_name}` is not a class of diffusers or transformers"
        )
    return found
