"""Skeletons: a pipeline's real Python objects around modules that own no weights.

Parameters are fake tensors (a shape and a dtype), buffers are real: what a module computes for itself when
it is built (position ids, rotary frequencies, sine tables) is part of the graph, what was trained is not.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from qdx.exporter.capture.cost import bounded_tensors, check_parameter_count
from qdx.exporter.capture.folder import OMITTED, Component, PipelineFolder, resolve_class
from qdx.exporter.capture.library_errors import library_errors
from qdx.exporter.capture.live import copy_without_weights
from qdx.exporter.capture.offline import offline
from qdx.exporter.capture.setup import apply_setup
from qdx.exporter.capture.unbuilt import Unbuilt
from qdx.exporter.capture.watched_mode import WatchedMode
from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.ir.weight_files import variants_in
from qdx.exporter.limits import PROMPT_TOKENS_LIMIT, TRAINING_STEPS_LIMIT

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# transformers' mark of a parameter that is loaded: initializing it would read values that it does not have.
_LOADED: Final = "_is_hf_initialized"


@dataclass(frozen=True)
class Skeleton:
    """A pipeline without weights.

    Attributes:
        folder: Where it came from.
        pipeline: The diffusers pipeline; its modules hold fake parameters.
        mode: The fake mode that those parameters belong to.
        omitted: Component names that were left out, each with the reason.
    """

    folder: PipelineFolder
    pipeline: DiffusionPipeline
    mode: WatchedMode
    omitted: dict[str, str]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The components that compute, by name."""
        return {
            name: part
            for name, part in self.pipeline.components.items()
            if isinstance(part, nn.Module)
        }


def build_skeleton(folder: PipelineFolder) -> Skeleton:
    """Builds the pipeline from its configurations alone; no weight file is opened.

    Raises:
        InvalidModel: A configuration, tokenizer or scheduler does not build.
    """
    mode = WatchedMode()
    if folder.live is not None:
        return _of_live(folder, folder.live.pipeline, mode)
    pipeline_class = _pipeline_class(folder)
    omitted = {name: reason for name, reason in OMITTED.items() if name in folder.components}
    parts: dict[str, Any] = dict.fromkeys(folder.absent)
    home = sys.modules[pipeline_class.__module__]
    for name, component in folder.components.items():
        if name in omitted:
            parts[name] = None
            continue
        try:
            parts[name] = build_component(component, mode, home=home)
        except InvalidModel as error:
            if variants_in(component.path):  # it computes, and a pipeline without it is another one
                raise
            parts[name] = Unbuilt(error)
            omitted[name] = (
                f"it cannot be built, and the exported call never uses it: {error.message}"
            )
    options = dict(folder.options)
    if (
        "safety_checker" in omitted
        and "requires_safety_checker" in inspect.signature(pipeline_class).parameters
    ):
        options["requires_safety_checker"] = False
    known = inspect.signature(pipeline_class).parameters
    if extra := [name for name in folder.components if name not in known]:
        raise InvalidModel(
            f"`{folder.path}/model_index.json`: {folder.pipeline_class} has no component `{extra[0]}`",
            hint="remove the entry, or update diffusers",
        )
    with library_errors(
        f"`{folder.path}/model_index.json`",
        f"{folder.pipeline_class} does not accept these components",
        hint="the folder was probably saved by another version of diffusers",
    ):
        given = {k: v for k, v in {**options, **parts}.items() if k in known}
        with offline():
            pipeline = pipeline_class(**given)
    pipeline.set_progress_bar_config(disable=True)
    apply_setup(pipeline, folder.setup)
    skeleton = Skeleton(folder, pipeline, mode, omitted)
    if not skeleton.modules:
        raise InvalidModel(f"`{folder.path}/model_index.json`: names no component that computes",
                           hint="the model folder is incomplete; save or fetch it again")  # fmt: skip
    return skeleton


def _of_live(folder: PipelineFolder, held: DiffusionPipeline, mode: WatchedMode) -> Skeleton:
    """A copy of a pipeline that somebody holds, without its weights and without what is left out."""
    pipeline = copy_without_weights(held, mode)
    omitted = {name: reason for name, reason in OMITTED.items() if name in folder.components}
    for name in omitted:
        setattr(pipeline, name, None)
    if "safety_checker" in omitted and "requires_safety_checker" in pipeline.config:
        pipeline.register_to_config(requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    apply_setup(pipeline, folder.setup)
    return Skeleton(folder, pipeline, mode, omitted)


def _pipeline_class(folder: PipelineFolder) -> Any:
    where = f"`{folder.path}/model_index.json`"
    with library_errors(
        where, "diffusers cannot be imported", hint="pip install --upgrade diffusers"
    ):
        from diffusers import DiffusionPipeline

    cls = resolve_class("diffusers", folder.pipeline_class, where=where)
    if not issubclass(cls, DiffusionPipeline) or cls is DiffusionPipeline:
        raise InvalidModel(f"{where}: `{folder.pipeline_class}` is not the class of a pipeline",
                           hint="`_class_name` names one, such as `StableDiffusionPipeline`")  # fmt: skip
    return cls


def build_component(
    component: Component, mode: FakeTensorMode, *, home: ModuleType | None = None
) -> Any:
    """One component: a module with fake parameters, or the real tokenizer, scheduler or processor.

    Args:
        component: The component.
        mode: The fake mode of the parameters.
        home: The module of its pipeline's class, see `resolve_class`.

    Raises:
        InvalidModel: It does not build.
    """
    from transformers import PreTrainedModel

    where = f"`{component.path}`"
    cls = resolve_class(component.library, component.class_name, where=where, home=home)
    with library_errors(
        where,
        f"{component.class_name} cannot be built from its files",
        hint="the files are damaged or belong to another class or version; `qdx --debug` shows where it failed",
    ):
        if not issubclass(cls, nn.Module):
            _check_helper(cls, component)
            with bounded_tensors(), offline():
                return _load_helper(cls, component)
        if component.members and not hasattr(cls, "from_config"):
            return cls([build_component(member, mode) for member in component.members]).eval()
        config = copy.deepcopy(component.config)
        if not config:
            raise InvalidModel(f"`{component.path / 'config.json'}`: missing or empty",
                               hint="the model folder is incomplete; save or fetch it again")  # fmt: skip
        with fake_parameters(mode), bounded_tensors(), offline(), torch.no_grad():
            # diffusers has some models of transformers' kind of its own.
            if issubclass(cls, PreTrainedModel):
                module = cls(_transformers_config(cls.config_class, config))  # type: ignore[attr-defined]
                module.tie_weights()  # type: ignore[operator]
            else:
                module = cls.from_config(config)  # type: ignore[attr-defined]
        return module.eval()


def _transformers_config(kind: Any, config: dict[str, Any]) -> Any:
    """The configuration of a transformers model, of the kind that the file says.

    A part of a larger model may be saved with its own configuration, or with that of the whole.
    """
    said = config.get("model_type", kind.model_type)
    if said == kind.model_type:
        return kind.from_dict(config)
    own = config.get(kind.base_config_key) if kind.base_config_key else None
    if isinstance(own, dict):
        return kind.from_dict(own)
    parts = (part for part in kind.sub_configs.values() if part.model_type == said)
    return next(parts, kind).from_dict(config)


def _check_helper(cls: type, component: Component) -> None:
    """Refuses classes that are no part of a pipeline, and sizes that cost without end."""
    import diffusers
    import transformers

    # Whole pipelines, and classes that pick another by a name in a file.
    unfit = (diffusers.DiffusionPipeline, diffusers.AutoModel, transformers.Trainer)
    if issubclass(cls, unfit) or not (
        hasattr(cls, "from_config") or hasattr(cls, "from_pretrained")
    ):
        raise InvalidModel(f"`{component.path}`: {component.class_name} is not the class of a component",
                           hint="name the class itself, such as `UNet2DConditionModel`")  # fmt: skip
    steps = component.config.get("num_train_timesteps")
    if isinstance(steps, int) and not 0 < steps <= TRAINING_STEPS_LIMIT:
        raise InvalidModel(
            f"`{component.path / 'scheduler_config.json'}`: `num_train_timesteps` is {steps}, "
            f"expected 1 to {TRAINING_STEPS_LIMIT}"
        )
    if issubclass(cls, transformers.PreTrainedTokenizerBase):
        _check_tokenizer(cls, component)


def _check_tokenizer(cls: Any, component: Component) -> None:
    """Refuses what transformers would make an empty tokenizer of, or pad without end."""
    files: dict[str, str] = cls.vocab_files_names
    needed = [files[key] for key in ("vocab_file", "merges_file") if key in files]
    missing = [name for name in needed if not (component.path / name).exists()]
    if missing and not (component.path / "tokenizer.json").exists():
        raise InvalidModel(f"`{component.path}`: has neither tokenizer.json nor {missing[0]}",
                           hint="the model folder is incomplete; save or fetch it again")  # fmt: skip
    length = component.config.get("model_max_length")
    # Above 1e20 transformers takes the length for unknown.
    if isinstance(length, int) and not (0 < length <= PROMPT_TOKENS_LIMIT or length > 1e20):
        raise InvalidModel(
            f"`{component.path / 'tokenizer_config.json'}`: `model_max_length` is {length}, "
            f"expected 1 to {PROMPT_TOKENS_LIMIT}"
        )


def _load_helper(cls: Any, component: Component) -> Any:
    """A scheduler from its configuration, a tokenizer or processor from its folder, offline."""
    if hasattr(cls, "from_config"):
        if not component.config:
            name = getattr(cls, "config_name", None) or "scheduler_config.json"
            raise InvalidModel(f"`{component.path / name}`: missing or empty",
                               hint="the model folder is incomplete; save or fetch it again")  # fmt: skip
        return cls.from_config(copy.deepcopy(component.config))
    return cls.from_pretrained(str(component.path), local_files_only=True, trust_remote_code=False)


@contextmanager
def fake_parameters(mode: FakeTensorMode) -> Iterator[None]:
    """While active, every parameter that a module registers becomes a fake one of the same shape and dtype.

    The real tensor that a layer allocates first is dropped at once, before anything initializes (and so
    touches) its pages: building a model of any size needs no memory.
    """
    register = nn.Module.register_parameter
    count = 0

    def register_fake(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        nonlocal count
        if param is not None and not isinstance(param, FakeTensor):
            count += 1
            check_parameter_count(count)
            with mode:
                fake = torch.empty(param.shape, dtype=param.dtype)
            param = nn.Parameter(fake, requires_grad=False)
            setattr(param, _LOADED, True)
        register(module, name, param)

    nn.Module.register_parameter = register_fake  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
