"""diffusers' methods for adapters on an opened pipeline whose artifacts take some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.capture.adapters import LoraFile, read_layers
from qdx.exporter.errors import UsageError, quoted
from qdx.runtime.adapted_runner import AdaptedRunner
from qdx.runtime.adapters import AdaptedMethod, Adapter, Adapters, State

if TYPE_CHECKING:
    import torch

    from qdx.bundle.manifest import Manifest
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.runtime.methods import TargetMethod

__all__ = ["AdapterMethods", "offer_adapters"]

_USUAL_FILE: Final = "pytorch_lora_weights.safetensors"
_OTHER_OPTIONS: Final = frozenset({"cache_dir", "force_download", "local_files_only", "low_cpu_mem_usage", "proxies",
                                   "revision", "token", "use_safetensors", "user_agent"})  # fmt: skip
"""What diffusers takes to find a file elsewhere or to load it otherwise, which changes nothing of an adapter."""
_IN_MEMORY: Final = "the tensors"


def offer_adapters(
    skeleton: Skeleton, manifest: Manifest, methods: Mapping[str, TargetMethod]
) -> Adapters | None:
    """Gives an opened pipeline the methods that load and set adapters, where its artifacts take some.

    Args:
        skeleton: The pipeline.
        manifest: Of the bundle.
        methods: Its methods, opened on the target.

    Returns:
        Its adapters; None where no artifact takes any.
    """
    adapted = {}
    for name, component in manifest.components.items():
        for method, record in component.methods.items():
            runner = methods[f"{name}.{method}"].runner
            if record.lora is not None and isinstance(runner, AdaptedRunner):
                adapted[f"{name}.{method}"] = AdaptedMethod(record.lora, runner)
    if not adapted:
        return None
    adapters = Adapters(adapted)
    offered = AdapterMethods(skeleton, adapters)
    for name in AdapterMethods.NAMES:
        if hasattr(skeleton.pipeline, name):
            vars(skeleton.pipeline)[name] = getattr(offered, name)
    return adapters


class AdapterMethods:
    """What diffusers' mixins for LoRA offer, with the same names and arguments.

    Args:
        skeleton: The pipeline.
        adapters: Its adapters.
    """

    NAMES: Final = ("load_lora_weights", "unload_lora_weights", "set_adapters", "delete_adapters", "disable_lora",
                    "enable_lora", "fuse_lora", "unfuse_lora", "get_active_adapters", "get_list_adapters")  # fmt: skip

    def __init__(self, skeleton: Skeleton, adapters: Adapters) -> None:
        self._skeleton = skeleton
        self._adapters = adapters

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,  # noqa: FBT001, FBT002  # diffusers' own
        **options: Any,
    ) -> None:
        """Loads an adapter, which is then the active one.

        Args:
            pretrained_model_name_or_path_or_dict: A file, a folder that holds one, or its tensors by name.
            adapter_name: A name for it; `default_0` and so on where None.
            hotswap: Take the place of the adapter of this name, which stays as active as it is.
            options: `weight_name` and `subfolder` tell the file in a folder.

        Raises:
            InvalidInput: It is damaged, of another kind, or made for another model.
            UsageError: There is no such file, or the artifacts do not take it; nothing has changed then.
        """
        state = self._adapters.state
        name = adapter_name or _free_name(state.loaded)
        if hotswap != (name in state.loaded):
            raise UsageError(
                f"load_lora_weights: there is {'no' if hotswap else 'an'} adapter {quoted(name)}",
                hint=f"hotswap replaces an adapter that is loaded; loaded are {', '.join(state.loaded) or 'none'}",
            )
        self._check_not_fused("load_lora_weights")
        file = _file(pretrained_model_name_or_path_or_dict, options)
        layers = read_layers(file, self._skeleton)
        self._adapters.check(layers, str(file.path))
        loaded = {**state.loaded, name: layers}
        if hotswap:
            active = tuple(replace(a, layers=loaded[a.name]) for a in state.active)
            self._adapters.put(replace(state, loaded=loaded, active=active))
            return
        self._adapters.put(replace(state, loaded=loaded, active=(Adapter(name, layers, {}),)))

    def unload_lora_weights(self, reset_to_overwritten_params: bool | None = None) -> None:  # noqa: FBT001  # likewise
        """Forgets all adapters; what is fused stays, as it is part of the model then."""
        del reset_to_overwritten_params
        state = self._adapters.state
        self._adapters.put(State(kept=state.kept + state.fused))

    def set_adapters(self, adapter_names: Sequence[str] | str, adapter_weights: Any = None) -> None:
        """Makes adapters the active ones.

        Args:
            adapter_names: Their names.
            adapter_weights: A factor for all or for each, or numbers by component; 1 where None.

        Raises:
            UsageError: One is not loaded, weights are for single blocks, or the ranks are too many together.
        """
        self._check_not_fused("set_adapters")
        state = self._adapters.state
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._check_loaded(names, "set_adapters")
        weights = adapter_weights if isinstance(adapter_weights, list) else [adapter_weights] * len(names)  # fmt: skip
        if len(weights) != len(names):
            raise UsageError(f"set_adapters: {len(names)} adapters and {len(weights)} weights")
        active = tuple(
            Adapter(name, state.loaded[name], _weights(weight, self._adapters.components))
            for name, weight in zip(names, weights, strict=True)
        )
        self._adapters.put(replace(state, active=active))

    def delete_adapters(self, adapter_names: Sequence[str] | str) -> None:
        """Forgets adapters.

        Raises:
            UsageError: One is not loaded, or some are fused.
        """
        self._check_not_fused("delete_adapters")
        names = {adapter_names} if isinstance(adapter_names, str) else set(adapter_names)
        self._check_loaded(sorted(names), "delete_adapters")
        state = self._adapters.state
        loaded = {name: layers for name, layers in state.loaded.items() if name not in names}
        active = tuple(one for one in state.active if one.name not in names)
        self._adapters.put(replace(state, loaded=loaded, active=active))

    def disable_lora(self) -> None:
        """Lets no adapter count until `enable_lora`.

        Raises:
            UsageError: Some are fused.
        """
        self._check_not_fused("disable_lora")
        self._adapters.put(replace(self._adapters.state, enabled=False))

    def enable_lora(self) -> None:
        """Lets the active adapters count again."""
        self._adapters.put(replace(self._adapters.state, enabled=True))

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,  # noqa: FBT001, FBT002  # likewise
        adapter_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        """Lets adapters count whatever happens to the active ones; they stay when adapters are unloaded.

        Args:
            components: Of which layers; all that take adapters where None.
            lora_scale: A factor beside their weights.
            safe_fusing: Without effect: numbers were checked when they were loaded.
            adapter_names: Those to fuse; the active ones where None.
            options: None are known.

        Raises:
            UsageError: There is nothing to fuse, or something is fused already.
        """
        del safe_fusing
        _check_options(options, "fuse_lora")
        self._check_not_fused("fuse_lora")
        state = self._adapters.state
        if adapter_names is not None:
            self._check_loaded(adapter_names, "fuse_lora")
        weights = {one.name: one.weights for one in state.active}
        names = list(weights) if adapter_names is None else adapter_names
        if not names:
            raise UsageError("fuse_lora: no adapter is active", hint="load_lora_weights first")
        wanted = self._adapters.components if components is None else components
        fused = [
            Adapter(
                name,
                {c: own for c, own in state.loaded[name].items() if c in wanted},
                weights.get(name, dict.fromkeys(wanted, 1.0)),
            )
            for name in names
        ]
        self._adapters.put(replace(state, fused=tuple(self._times(one, lora_scale) for one in fused)))  # fmt: skip

    def unfuse_lora(self, components: Sequence[str] | None = None, **options: Any) -> None:
        """Takes out what is fused and was not unloaded.

        Raises:
            UsageError: Only some components are meant.
        """
        _check_options(options, "unfuse_lora")
        state = self._adapters.state
        if components is not None and not set(self._adapters.components) <= set(components):
            raise UsageError(
                f"unfuse_lora: adapters are fused into {', '.join(self._adapters.components)}, and come out of all together",
                hint="call it without components",
            )
        self._adapters.put(replace(state, fused=()))

    def get_active_adapters(self) -> list[str]:
        """Names of the adapters that are active."""
        return [one.name for one in self._adapters.state.active]

    def get_list_adapters(self) -> dict[str, list[str]]:
        """Names of all adapters by component."""
        found: dict[str, list[str]] = {}
        for name, layers in self._adapters.state.loaded.items():
            for component in layers:
                found.setdefault(component, []).append(name)
        return found

    def _times(self, adapter: Adapter, factor: float) -> Adapter:
        weights = {c: factor * adapter.weights.get(c, 1.0) for c in self._adapters.components}
        return replace(adapter, weights=weights)

    def _check_loaded(self, names: Sequence[str], method: str) -> None:
        known = self._adapters.state.loaded
        for name in names:
            if name not in known:
                raise UsageError(
                    f"{method}: there is no adapter {quoted(name)}",
                    hint=f"loaded are {', '.join(known) or 'none'}",
                )

    def _check_not_fused(self, method: str) -> None:
        fused = self._adapters.state.fused
        if fused:
            raise UsageError(
                f"{method}: has no effect while {', '.join(quoted(one.name) for one in fused)} are fused",
                hint="unfuse_lora first; or unload_lora_weights, which keeps what is fused",
            )


def _free_name(loaded: Mapping[str, Any]) -> str:
    return next(name for n in range(len(loaded) + 1) if (name := f"default_{n}") not in loaded)


def _weights(weight: Any, components: Sequence[str]) -> dict[str, float]:
    """The factors of one adapter by component."""
    given = weight if isinstance(weight, Mapping) else dict.fromkeys(components, weight)
    found = {name: 1.0 if value is None else value for name, value in given.items()}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(
                f"set_adapters: {quoted(name)} has weights of its own for blocks, and artifacts take one number for each "
                "component",
                hint="give a number; or multiply the matrices of those blocks and load them as a dictionary",
            )
    return {name: float(value) for name, value in found.items()}


def _check_options(options: Mapping[str, Any], method: str) -> None:
    if options:
        raise UsageError(f"{method}: there is no option {quoted(next(iter(options)))}")


def _file(source: str | Path | Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> LoraFile:
    """What is to be loaded, on this machine or in memory."""
    rest = {n: v for n, v in options.items() if n not in {*_OTHER_OPTIONS, "weight_name", "subfolder"}}  # fmt: skip
    _check_options(rest, "load_lora_weights")
    if isinstance(source, Mapping):
        return LoraFile(Path(_IN_MEMORY), tensors=source)
    path = Path(source)
    if path.is_file():
        return LoraFile(path)
    folder = path / str(options.get("subfolder") or "")
    if not folder.is_dir():
        raise UsageError(
            f"load_lora_weights: {quoted(source)} is no file or folder here, and nothing is downloaded",
            hint="download it first, such as with `hf download`",
        )
    name = options.get("weight_name")
    usual = folder / _USUAL_FILE
    found = [usual] if usual.is_file() else sorted(folder.glob("*.safetensors"))
    if name is not None:
        found = [folder / str(name)]
    if len(found) != 1 or not found[0].is_file():
        raise UsageError(
            f"load_lora_weights: {quoted(folder)} has {len(found)} files that it could be, expected one",
            hint="name the file with weight_name",
        )
    return LoraFile(found[0])
