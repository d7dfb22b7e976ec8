"""Building of one pipeline: its components from the signature of its constructor, their weights, its folder."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.every.calls import Input, small_call
from tests.support.every.choices import ABSENT, chosen
from tests.support.every.encoders import ENCODERS, make_encoder, make_processor
from tests.support.every.sizes import SIZES, SMALL
from tests.support.every.words import ANY, TOKENIZER_OF, is_tokenizer, make_tokenizer
from tests.support.tiny.weights import randomise

_OPTIONAL: Final = frozenset({"safety_checker", "watermarker"})
_CONCRETE: Final = {
    "Gemma2PreTrainedModel": "Gemma2Model",
    "GemmaPreTrainedModel": "GemmaModel",
    "KarrasDiffusionSchedulers": "DDIMScheduler",
    "SchedulerMixin": "DDIMScheduler",
}
"""What is built where a signature names a base class or an enumeration."""


@dataclass(frozen=True)
class Case:
    """A pipeline and a call of it.

    Attributes:
        pipeline: The pipeline in PyTorch.
        call: Its arguments; pictures, videos and tensors are `Input`s.
    """

    pipeline: Any
    call: dict[str, Any | Input]


def pipeline_classes() -> dict[str, type]:
    """Every subclass of `DiffusionPipeline` that the installed diffusers exports, by name.

    Those that draw with ONNX Runtime themselves hold no PyTorch modules, and are left out.
    """
    import diffusers

    found = {}
    for name in sorted(dir(diffusers)):
        try:
            value = getattr(diffusers, name)
        except (AttributeError, RuntimeError):
            continue  # a name whose module is gone, or wants a package that is not here
        if inspect.isclass(value) and issubclass(value, diffusers.DiffusionPipeline):
            found[name] = value
    return {
        name: value
        for name, value in found.items()
        if name != "DiffusionPipeline" and "Onnx" not in name
    }


def make_case(name: str, *, seed: int = 0) -> Case:
    """A pipeline with small components and useful random weights, and a small call.

    Raises:
        LookupError: A component is of a class that the tables do not know.
    """
    import diffusers
    import torch

    made = getattr(diffusers, name)
    parts, call = chosen(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        components = _components(made, parts)
    randomise(components, seed)
    for part in components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # as diffusers reads it, without dropout
    pipeline = made(**components)
    pipeline.set_progress_bar_config(disable=True)
    return Case(pipeline, small_call(made, call))


def save(case: Case, folder: Path) -> Path:
    """Writes the folder, as diffusers does."""
    case.pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _components(made: type, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a pipeline's constructor.

    Required ones are built, optional ones where a choice speaks of them; checkers and what only they need are None.
    """
    hints = _hints(made)
    parameters = list(inspect.signature(made.__init__).parameters.values())[1:]
    names = {one.name: _class_of(hints.get(one.name), parts.get(one.name)) for one in parameters}
    components: dict[str, Any] = {}
    # Tokenizers first: they say how many words an encoder knows.
    for parameter in sorted(parameters, key=lambda one: "tokenizer" not in one.name):
        name, choice = parameter.name, parts.get(parameter.name)
        if name in parts and not isinstance(choice, dict):
            if choice != ABSENT:
                components[name] = choice
        elif choice is not None:
            components[name] = _component(name, names, choice, components)
        elif name == "requires_safety_checker":
            components[name] = False
        elif parameter.default is not parameter.empty:
            continue
        elif name in _OPTIONAL or (name == "feature_extractor" and "safety_checker" in names):
            components[name] = None
        else:
            components[name] = _component(name, names, {}, components)
    return components


def _hints(made: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(made.__init__)
    except (NameError, TypeError):  # words in annotations that the module does not hold
        return dict(inspect.get_annotations(made.__init__))


def _class_of(hint: Any, choice: Any) -> str:
    """The name of the class to build: the choice's, else the first that the annotation names."""
    if isinstance(choice, dict) and "class" in choice:
        return str(choice["class"])
    if inspect.isclass(hint):
        return _CONCRETE.get(hint.__name__, hint.__name__)
    for one in typing.get_args(hint):
        return _class_of(one, choice)
    found = re.findall(r"\w+", str(hint))
    return found[-1] if found else ""


def _component(
    name: str, names: Mapping[str, str], choice: Mapping[str, Any], built: Mapping[str, Any]
) -> Any:
    """One component.

    Raises:
        LookupError: Its class is not known here.
    """
    import diffusers

    made = names[name]
    options = {key: value for key, value in choice.items() if key != "class"}
    if made == "dict":
        return options
    if is_tokenizer(made):
        return _tokenizer(name, names, options)
    cls = getattr(diffusers, made, None) or _inner_class(made)
    if made in ENCODERS:
        return make_encoder(made, cls, _tokenizer_of(name, built), options)
    if cls is None or made == "BlipImageProcessor":
        return make_processor(made, options)
    return cls(**_small(made, cls, options))


def _tokenizer(name: str, names: Mapping[str, str], options: Mapping[str, Any]) -> Any:
    made = names[name]
    if made in ANY:
        made = TOKENIZER_OF[names[name.replace("tokenizer", "text_encoder")]]
    tokenizer = make_tokenizer(made)
    for key, value in options.items():
        setattr(tokenizer, key, value)
    return tokenizer


def _tokenizer_of(encoder: str, built: Mapping[str, Any]) -> Any:
    """The tokenizer of an encoder: `tokenizer_2` for `text_encoder_2`, else the only one."""
    own = encoder.replace("text_encoder", "tokenizer")
    for name in (own, "tokenizer", "clip_tokenizer"):
        if name in built:
            return built[name]
    return None


def _inner_class(name: str) -> type | None:
    """A class that only the modules of a pipeline hold."""
    for where, module in list(sys.modules.items()):
        found = (
            vars(module).get(name)
            if where.startswith(("diffusers.pipelines", "diffusers.guiders"))
            else None
        )
        if inspect.isclass(found) and found.__module__.startswith("diffusers"):
            return found
    return None


def _small(name: str, cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a component: `SMALL` where it takes them, then `SIZES`, then the pipeline's own choice."""
    if "Scheduler" in name or "Guidance" in name:
        return dict(options)
    taken = inspect.signature(cls.__init__).parameters
    merged = {**SMALL, **SIZES.get(name, {}), **options}
    return {key: value for key, value in merged.items() if key in taken}
