"""What fits a value on the command line, by the placeholder that the help shows for it: `PLAN`, `TARGET`, `MODEL`.

Whatever a folder says comes from its index alone, read as strangers' data: names that are not plain are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, QdxError
from qdx.exporter.files import load_json, read_text
from qdx.exporter.limits import JSON_LIMIT_BYTES

__all__ = ["NOTHING", "Fitting", "components_of", "fitting"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DESCRIPTION: Final = re.compile(r'^ *"?description"? ?[:=] ?"([^"]*)"', re.MULTILINE)
_FOLDERS: Final = ("MODEL|BUNDLE", "BUNDLE", "MODEL", "DIR")
"""Placeholders of folders that may name components, the one to ask first at the front."""
_ROLE_WORDS: Final = {
    "attn.k": "keys of an attention",
    "attn.kv": "keys and values in one",
    "attn.out": "behind an attention",
    "attn.pv": "probabilities with values",
    "attn.q": "queries of an attention",
    "attn.qk": "queries with keys",
    "attn.qk_in": "before queries and keys",
    "attn.qkv": "queries, keys and values in one",
    "attn.qv": "queries and values in one",
    "attn.v": "values of an attention",
    "conv": "any other convolution",
    "embedding": "a table of embeddings",
    "ff.in": "into a feed-forward part",
    "ff.out": "out of a feed-forward part",
    "first": "what the main input reaches first",
    "last": "nearest before an output",
    "norm": "a normalization",
    "other": "none of the others",
    "residual": "an addition to a longer path",
    "shortcut": "beside a longer path",
    "time_embed": "sees the timestep alone",
}
"""What the roles of operations are, in words."""


@dataclass(frozen=True)
class Fitting:
    """What fits.

    Attributes:
        files: Which files do: `none`, `folders` or `files`.
        words: Words that do, each with what it is.
        ending: Of the files' names, any where empty.
    """

    files: str
    words: Mapping[str, str] = field(default_factory=dict)
    ending: str = ""

    def behind(self, prefix: str) -> Fitting:
        """The same where the words stand behind something in one word of the shell."""
        return replace(self, words={f"{prefix}{word}": text for word, text in self.words.items()})


NOTHING: Final = Fitting("none")


def fitting(placeholder: str, start: str, given: Mapping[str, str]) -> Fitting:
    """Returns what fits a value that starts so.

    Args:
        placeholder: What the help shows for it, without brackets and dots.
        start: What is typed of it.
        given: Values that are there already, by their placeholders.
    """
    if placeholder == "A,B":
        return _listed(_components(given), start)
    found = _FILES.get(placeholder, NOTHING)
    names = _NAMES.get(placeholder)
    if names is None:
        return found
    return replace(found, words={n: t for n, t in names(given).items() if n.startswith(start)})


def components_of(folder: Path) -> dict[str, str]:
    """Components of a pipeline folder or a bundle, each with its class; empty where the folder is neither."""
    return _classes_in_bundle(folder) or _classes_in_model(folder)


def _classes_in_model(folder: Path) -> dict[str, str]:
    index = _read(folder / "model_index.json")
    pairs = {name: pair for name, pair in index.items() if isinstance(pair, list)}
    classes = {name: pair[1] for name, pair in pairs.items() if len(pair) == 2}
    # Only neural networks keep their configuration under this name; the others are not exported.
    return _plain({n: c for n, c in classes.items() if (folder / n / "config.json").is_file()})


def _classes_in_bundle(folder: Path) -> dict[str, str]:
    components = _read(folder / "qdx.json").get("components")
    if not isinstance(components, dict):
        return {}
    return _plain({n: one.get("class") for n, one in components.items() if isinstance(one, dict)})


def _read(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is none that can be read: who completes a word is told no faults of files."""
    try:
        if not path.is_file() or path.stat().st_size > JSON_LIMIT_BYTES:
            return {}
        return load_json(path, error=InvalidInput)
    except (OSError, QdxError):
        return {}


def _plain(classes: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) and _PLAIN.fullmatch(value) else ""
        for name, value in classes.items()
        if _PLAIN.fullmatch(name)
    }


def _components(given: Mapping[str, str]) -> dict[str, str]:
    """Components of the folder that the command line names."""
    folders = [Path(given[one]).expanduser() for one in _FOLDERS if one in given]
    return next(filter(None, map(components_of, folders)), {})


def _variants(given: Mapping[str, str]) -> dict[str, str]:
    """Variants among the files of weights of the folder that the command line names."""
    found: set[str] = set()
    for one in _FOLDERS:
        if one in given:
            for file in Path(given[one]).expanduser().glob("*/*.safetensors"):
                found.update(_variants_in(file.name))
    return {name: "a variant of the weights" for name in sorted(found) if _PLAIN.fullmatch(name)}


def _variants_in(name: str) -> Iterable[str]:
    """`fp16` of `model.fp16.safetensors`, or of `model.fp16-00001-of-00002.safetensors`."""
    middle = name.split(".")[1:-1]
    return [re.sub(r"-[0-9]{5}-of-[0-9]{5}", "", middle[0])] if len(middle) == 1 else []


def _listed(names: Mapping[str, str], start: str) -> Fitting:
    """Names in a list with commas: the last one is completed, those before it are not offered again."""
    before, comma, last = start.rpartition(",")
    taken = set(before.split(","))
    fit = {n: t for n, t in names.items() if n.startswith(last) and n not in taken}
    return Fitting("none", fit).behind(before + comma)


def _presets(_: Mapping[str, str]) -> dict[str, str]:
    return _described("qdx.exporter.plan", "presets/*.json")


def _targets(_: Mapping[str, str]) -> dict[str, str]:
    return _described("qdx.targets", "*.toml")


def _layouts(_: Mapping[str, str]) -> dict[str, str]:
    return {
        "epcontext": "engines as models that Windows ML opens",
        "swift": "packages for Apple's ml-stable-diffusion",
    }


def _kinds(_: Mapping[str, str]) -> dict[str, str]:
    """Kinds of entries in the user's cache."""
    from qdx.cache.place import user_root

    try:
        kinds = [path.name for path in user_root().iterdir() if path.is_dir()]
    except (OSError, QdxError):
        return {}
    return {name: "entries of this kind" for name in sorted(kinds) if _PLAIN.fullmatch(name)}


def _devices(_: Mapping[str, str]) -> dict[str, str]:
    return {"auto": "the first GPU, if there is one", "cpu": "the processor", "cuda": "a GPU"}


def _budgets(_: Mapping[str, str]) -> dict[str, str]:
    return dict.fromkeys(("90s", "30min", "2h"), "a time limit")


def _shells(_: Mapping[str, str]) -> dict[str, str]:
    return dict.fromkeys(("bash", "zsh", "fish"), "a shell")


def _roles(_: Mapping[str, str]) -> dict[str, str]:
    from qdx.exporter.graph.ir.site import ROLES

    return {role: _ROLE_WORDS[role] for role in ROLES}


def _described(package: str, pattern: str) -> dict[str, str]:
    """Names of files in a package's folder, each with its description.

    The package is not imported: that takes longer than all else that a completion does.
    """
    spec = find_spec(package)
    assert spec is not None
    folders = map(Path, spec.submodule_search_locations or ())
    found = {path.stem: path for folder in folders for path in folder.glob(pattern)}
    return {name: _description(path) for name, path in sorted(found.items())}


def _description(path: Path) -> str:
    match = _DESCRIPTION.search(read_text(path, allow_hard_links=True))
    return match[1] if match else ""


_NAMES: Final[Mapping[str, Callable[[Mapping[str, str]], Mapping[str, str]]]] = {
    "COMPONENT": _components,
    "DEVICE": _devices,
    "KIND": _kinds,
    "LAYOUT": _layouts,
    "NAME": _variants,
    "NAME|FILE": _targets,
    "PLAN": _presets,
    "PRESET": _presets,
    "ROLE": _roles,
    "SHELL": _shells,
    "TARGET": _targets,
    "TIME": _budgets,
}
_FILES: Final[Mapping[str, Fitting]] = {
    **dict.fromkeys(("BUNDLE", "DIR", "MODEL", "MODEL|BUNDLE", "OUT"), Fitting("folders")),
    **dict.fromkeys(("FILE", "IMAGE"), Fitting("files")),
    "FILE:FUNCTION": Fitting("files", ending="py"),
    "FILE[:SCALE": Fitting("files", ending="safetensors"),
    "JSON|FILE": Fitting("files", ending="json"),
    "NAME|FILE": Fitting("files", ending="toml"),
    "PLAN": Fitting("files", ending="json"),
    "REPORT": Fitting("files", ending="json"),
    "TARGET": Fitting("files", ending="toml"),
}
