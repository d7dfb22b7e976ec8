"""Reading a pipeline folder: which components it has and which library classes build them.

The folder is data from a stranger. Nothing in it may name code outside diffusers and transformers,
and nothing is imported here: classes are resolved by `resolve_class`, when somebody builds them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.library_errors import environment_fault, library_errors
from qdx.exporter.capture.no_pipeline import no_pipeline
from qdx.exporter.capture.setup import Setup
from qdx.exporter.errors import InvalidModel, quoted
from qdx.exporter.files import LINK_HINT, load_json, open_regular, safe_child
from qdx.exporter.graph.ir.weight_files import variants_in
from qdx.exporter.strict_json import CONFIG, JsonRules

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from diffusers import DiffusionPipeline
    from torch import nn

    from qdx.exporter.capture.deltas import Adapters, Delta

INDEX_FILE = "model_index.json"
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_CONFIG_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json",
                 "preprocessor_config.json", "processor_config.json")  # fmt: skip
# What never is the configuration of a component itself.
_OTHER_CONFIGS = frozenset({"adapter_config.json", "generation_config.json"})
# Components that are no part of generating and whose code leaves PyTorch, so that no graph exists.
OMITTED = {
    "safety_checker": "it runs NumPy code after the picture is made; artifacts ship without it"
}
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
        variant: Of its weights, such as `fp16`, empty for the unmarked ones; None for what the folder holds.
        members: What it may consist of: diffusers saves a model of several models as `NAME`, `NAME_1`, and so on.
        held: The module itself, where somebody holds the pipeline; None of a folder, and of what is no module.
    """

    name: str
    library: str
    class_name: str
    path: Path
    config: dict[str, Any] = field(repr=False)
    variant: str | None = None
    members: tuple[Component, ...] = field(default=(), repr=False)
    held: nn.Module | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class LivePipeline:
    """A pipeline that somebody holds, and the temporary folder of what is written of it.

    Attributes:
        pipeline: The object, which is never changed.
        place: Lasts as long as this does.
    """

    pipeline: DiffusionPipeline
    place: TemporaryDirectory[str]


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline folder whose every named class is one of diffusers or transformers.

    Attributes:
        path: The folder, absolute.
        pipeline_class: The pipeline's class in diffusers, such as `StableDiffusionPipeline`.
        components: The components that the index names, in its order; absent (null) ones are left out.
        absent: Names of optional components that the index sets to null.
        options: Further arguments of the pipeline's constructor, such as `force_zeros_for_empty_prompt`.
        live: The pipeline that somebody holds, of which this is the view; None of a folder.
        adapters: What is added to the weights when they are read; None for nothing.
        setup: Methods that are called on the pipeline when it is built, see `check_setup`.
    """

    path: Path
    pipeline_class: str
    components: dict[str, Component]
    absent: tuple[str, ...]
    options: dict[str, Any]
    live: LivePipeline | None = field(default=None, repr=False, compare=False)
    adapters: Adapters | None = None
    setup: Setup = ()

    def layers_adapted(self, component: str) -> Mapping[str, tuple[Delta, ...]]:
        """What adapters add to a component, by layer."""
        return {} if self.adapters is None else self.adapters.layers.get(component, {})

    def with_setup(self, setup: Setup) -> PipelineFolder:
        """The same pipeline with these methods called when it is built."""
        return replace(self, setup=setup)

    def with_folders(self, folders: Mapping[str, Path]) -> PipelineFolder:
        """The same pipeline with the configurations of these components read from other folders."""
        moved = {
            name: _with_members(replace(self.components[name], path=path, config=_config(path)))
            for name, path in folders.items()
        }
        return replace(self, components={**self.components, **moved})

    def with_variants(self, variants: Mapping[str, str]) -> PipelineFolder:
        """The same pipeline with these variants of its components' weights; an empty one is unmarked."""
        chosen = {
            name: _of_variant(component, variants.get(name, component.variant))
            for name, component in self.components.items()
        }
        return replace(self, components=chosen)


def read_pipeline_folder(
    path: Path | str,
    *,
    folders: Mapping[str, str] | None = None,
    variant: str | None = None,
) -> PipelineFolder:
    """Reads `model_index.json` and every component's configuration; imports no library for a complete folder.

    Args:
        path: The folder.
        folders: For components that lie in a folder of another name than their own.
        variant: Of the weights, such as `fp16`; components without it have unmarked ones. None takes the unmarked
            ones, or the only variant that a component has.

    Raises:
        InvalidModel: The folder or a file is missing or broken, or names code that qdx will not load.
    """
    root = Path(path).absolute()
    index_path = root / INDEX_FILE
    if not root.is_dir() or not index_path.exists():
        raise no_pipeline(path)
    index = load_json(index_path, rules=_MODULE, in_model=True)
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
        if not isinstance(value, list) or (not _is_entry(value) and not (root / name).exists()):
            options[name] = value
        elif value == [None, None]:
            absent.append(name)
        elif (
            name not in OMITTED
            and not (root / (folders or {}).get(name, name)).exists()
            and _is_made_anew(index_path, pipeline_class, name)
        ):
            options[name] = value
        else:
            components[name] = _component(
                root, index_path, name, value, (folders or {}).get(name, name)
            )
    if not components:
        raise InvalidModel(f"`{index_path}`: names no component")
    folder = PipelineFolder(root, pipeline_class, components, tuple(absent), options)
    if variant is None:
        return folder
    _check_variant(folder, variant)
    return folder.with_variants(dict.fromkeys(components, variant))


def _is_entry(value: list[Any]) -> bool:
    """Whether a list of the index names a component or its absence, and is no option of the pipeline."""
    return len(value) == 2 and all(part is None or isinstance(part, str) for part in value)


def _is_made_anew(index_path: Path, pipeline_class: str, name: str) -> bool:
    """Whether diffusers neither saves nor loads this component: the pipeline's constructor makes its own.

    Only for a component without a folder, as it imports diffusers.
    """
    try:
        cls = resolve_class("diffusers", pipeline_class, where=f"`{index_path}`")
    except InvalidModel:  # told by whoever builds the pipeline
        return False
    parameter = inspect.signature(cls).parameters.get(name)
    return (
        parameter is not None
        and parameter.default is not parameter.empty
        and name not in getattr(cls, "_optional_components", ())
    )


def _check_variant(folder: PipelineFolder, variant: str) -> None:
    """Refuses a variant that no component has."""
    found = {one for part in folder.components.values() for one in variants_in(part.path)}
    if variant not in found:
        names = ", ".join(sorted(filter(None, found))) or "none"
        raise InvalidModel(
            f"`{folder.path}`: no component holds weights of variant {quoted(variant)}; variants there: {names}",
            hint="leave --variant out, or choose one that is there",
        )


def _of_variant(component: Component, variant: str | None) -> Component:
    members = tuple(replace(member, variant=variant) for member in component.members)
    return replace(component, variant=variant, members=members)


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
    if name in OMITTED and not folder.is_dir():
        return Component(name, library, class_name, folder, {})
    if not folder.is_dir():
        raise InvalidModel(
            f"{where}: folder `{folder}` is missing",
            hint="the model folder is incomplete; save or fetch it again, and in a bundle's place give what it "
            "was exported from",
        )
    _refuse_links(folder)
    config = _config(folder, of_library_class=library != "diffusers")
    return _with_members(Component(name, library, class_name, folder, config))


def _with_members(component: Component) -> Component:
    """The component with what it consists of, if its folder holds another class than the one that it is of."""
    first = component.config.get("_class_name")
    if component.library != "diffusers" or first in {None, component.class_name}:
        return component
    members: list[Component] = []
    path = component.path
    while path.is_dir():
        if members:
            _refuse_links(path)
        config = _config(path) if members else component.config
        class_name = config.get("_class_name")
        if not isinstance(class_name, str) or not _IDENTIFIER.fullmatch(class_name):
            raise InvalidModel(
                f"`{path / 'config.json'}`: `_class_name` is {class_name!r}, expected the name of a class"
            )
        members.append(Component(path.name, "diffusers", class_name, path, config))
        path = safe_child(path.parent, f"{component.path.name}_{len(members)}")
    return replace(component, members=tuple(members))


def _refuse_links(folder: Path) -> None:
    """Tokenizers open their files by themselves and would follow a link to a file outside."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            if path.is_dir():
                raise InvalidModel(
                    f"`{path}`: is a symbolic link, expected a folder", hint=LINK_HINT
                )
            open_regular(path, in_model=True).close()


def _config_files(folder: Path) -> tuple[str, ...]:
    """The names under which libraries keep configurations, the most usual first; guiders have one of their own."""
    others = sorted(path.name for path in folder.glob("*_config.json"))
    unusual = [name for name in others if name not in {*_CONFIG_FILES, *_OTHER_CONFIGS}]
    return (*_CONFIG_FILES, *unusual)


def _config(folder: Path, *, of_library_class: bool = False) -> dict[str, Any]:
    """The component's configuration, refused where it asks for code.

    Args:
        folder: The component's.
        of_library_class: Whether the index names a class of transformers' kind, which takes the place of the code that
            `auto_map` names: models whose class came to a library later have that key.
    """
    for file_name in _config_files(folder):
        path = folder / file_name
        if path.exists():
            rules = _MODULE if file_name == "config.json" else CONFIG
            config = load_json(path, rules=rules, in_model=True)
            if of_library_class:
                config.pop("auto_map", None)
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


def resolve_class(
    library: str, class_name: str, *, where: str, home: ModuleType | None = None
) -> type:
    """The class of that name in diffusers or transformers, and in nothing else.

    Args:
        library: `diffusers`, `transformers`, or a package of `diffusers.pipelines` (that is how
            diffusers names classes that belong to one pipeline).
        class_name: The class.
        where: What to call the place in an error.
        home: The module of the pipeline's class, which has some classes that diffusers itself does not show.

    Raises:
        InvalidModel: There is no such class, or it does not belong to these libraries.
    """
    module_name = _module_of(library)
    failed = f"{module_name} cannot give class `{class_name}`"
    with library_errors(where, failed, hint="update diffusers and transformers"):
        try:
            found = _class_of_name(importlib.import_module(module_name), class_name)
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
            found = getattr(home, class_name, None)
            if found is None:
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


def _module_of(library: str) -> str:
    """The module that the index means by a library: one of two, or a package of diffusers' pipelines."""
    if library in {"diffusers", "transformers"}:
        return library
    packages = (f"diffusers.pipelines.{library}", f"diffusers.pipelines.deprecated.{library}")
    return packages[1] if _exists(packages[1]) and not _exists(packages[0]) else packages[0]


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _class_of_name(library: ModuleType, name: str) -> Any:
    """What a library has under a name, or under the one that took its place.

    transformers dropped the feature extractors of images for image processors, and has one class for what were a
    slow and a fast one.
    """
    if library.__name__ == "transformers" and not hasattr(library, name):
        plain = name.removesuffix("Fast")
        later = (plain, f"{plain}Fast", plain.replace("FeatureExtractor", "ImageProcessor"))
        name = next((one for one in later if hasattr(library, one)), name)
    return getattr(library, name)
