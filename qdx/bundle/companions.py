"""The small files of a bundle: the index, and what tokenizers, schedulers and processors read.

They are the source's own, but for what ties them to one machine or to one version of their
library: a bundle's tokenizers open in transformers 4 and in transformers 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.capture.folder import INDEX_FILE
from qdx.exporter.errors import StorageError
from qdx.exporter.files import dump_json, is_relative, load_json, read_bytes, safe_child
from qdx.exporter.graph.ir.weights import persistent_buffers
from qdx.exporter.limits import HELPER_FILE_LIMIT_BYTES
from qdx.exporter.strict_json import CONFIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from qdx.exporter.capture.folder import Component, PipelineFolder
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.graph.ir.weights import LazyWeights

__all__ = [
    "BUFFERS_FILE",
    "CONFIG_FILE",
    "VALUES_FILE",
    "copy_helpers",
    "helper_paths",
    "make_folder",
    "portable",
    "write_buffers",
    "write_file",
    "write_values",
]

CONFIG_FILE: Final = "config.json"
BUFFERS_FILE: Final = "buffers.safetensors"
VALUES_FILE: Final = "values.safetensors"

# Files of tokenizers, schedulers and processors that travel with a pipeline: configurations, vocabularies, templates
# of conversations. No code, no weights.
_SUFFIXES = frozenset(
    {".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".bpe", ".vocab", ".merges"}
)
# A folder of further templates that a tokenizer or processor may have.
_TEMPLATES: Final = "additional_chat_templates"
# Where and how the author's machine kept the model.
_LOCAL_KEYS = frozenset({"_name_or_path", "name_or_path", "is_local", "local_files_only",
                         "special_tokens_map_file", "tokenizer_file"})  # fmt: skip
# Read by tokenizers of transformers 4 that were not made by the tokenizers library.
_SLOW_FILES = frozenset({"vocab.json", "vocab.txt"})
_TOKENIZER_LIMIT_BYTES = 128 * 2**20  # vocabularies of 256,000 tokens take 33 MiB


def copy_helpers(folder: PipelineFolder, skeleton: Skeleton, staging: Path) -> tuple[str, ...]:
    """Writes the index and the files of everything that is not a module.

    Args:
        folder: The source.
        skeleton: What was built from it.
        staging: The bundle's folder.

    Returns:
        The names of the components that are no modules, in the index's order.
    """
    index: dict[str, Any] = {"_class_name": folder.pipeline_class, **folder.options}
    for name in (*folder.components, *folder.absent):
        component = folder.components.get(name)
        kept = name in skeleton.modules or name not in skeleton.omitted
        index[name] = (
            [component.library, _class_name(component)] if component and kept else [None, None]
        )
    if "safety_checker" in skeleton.omitted and "requires_safety_checker" in index:
        index["requires_safety_checker"] = False
    write_file(staging / INDEX_FILE, dump_json(index))
    names = tuple(
        name
        for name in folder.components
        if name not in skeleton.modules and name not in skeleton.omitted
    )
    for name in names:
        make_folder(staging / name)
        for file_name, data in _contents(folder.components[name]).items():
            place = staging / name / file_name
            make_folder(place.parent)
            write_file(place, data)
    return names


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what it says about the machine that saved it."""
    return {
        key: portable(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _LOCAL_KEYS
    }


def helper_paths(component: Component) -> list[Path]:
    """The files of a tokenizer, scheduler or processor that travel with a pipeline.

    Raises:
        InvalidModel: One is a link, or has a name that no bundle may hold.
    """
    folders = (component.path, component.path / _TEMPLATES)
    found = sorted(
        path.relative_to(component.path).as_posix()
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix in _SUFFIXES
    )
    # No library looks for names with spaces and the like: somebody's notes.
    return [safe_child(component.path, name, in_model=True) for name in found if is_relative(name)]


def make_folder(path: Path) -> None:
    """Makes a folder with its parents.

    Raises:
        StorageError: The disk refused.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"`{path}`: {error.strerror}") from error


def write_file(path: Path, data: bytes) -> None:
    """Writes a file.

    Raises:
        StorageError: The disk refused.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(f"`{path}`: {error.strerror}") from error


def write_buffers(module: nn.Module, folder: Path) -> None:
    """Writes stored buffers, which the pipeline's Python may read (latent means), beside the artifact.

    Raises:
        StorageError: The disk refused.
    """
    buffers = persistent_buffers(module)
    if buffers:
        from safetensors.torch import save

        write_file(
            folder / BUFFERS_FILE,
            save({name: value.contiguous() for name, value in buffers.items()}),
        )


def write_values(weights: LazyWeights, names: Sequence[str], folder: Path) -> None:
    """Writes parameters whose values the pipeline's own Python reads (an embedding, a code book) beside the artifact.

    Args:
        weights: The component's.
        names: Those that are read; of tied ones any name.
        folder: Of the artifact.

    Raises:
        InvalidModel: A value is damaged.
        StorageError: The disk refused.
    """
    if names:
        from safetensors.torch import save

        values = {name: weights[name].read().contiguous() for name in sorted(names)}
        write_file(folder / VALUES_FILE, save(values))


def _class_name(component: Component) -> str:
    """The class that the index names.

    In transformers 4 `T5Tokenizer` reads a SentencePiece file and `T5TokenizerFast` reads
    `tokenizer.json`; transformers 5 has one class under both names.
    """
    path, name = component.path, component.class_name
    readable = any((path / file_name).exists() for file_name in _SLOW_FILES) or any(
        path.glob("*.model")
    )
    if (
        component.library != "transformers"
        or name.endswith("Fast")
        or readable
        or not (path / "tokenizer.json").exists()
    ):
        return name
    import transformers

    fast = f"{name}Fast"
    return (
        fast if hasattr(transformers, fast) and not _is_byte_level(_tokenizer_model(path)) else name
    )


def _contents(component: Component) -> dict[str, bytes]:
    """The component's files by name, with those that an older reader misses."""
    files = {
        path.relative_to(component.path).as_posix(): read_bytes(
            path, HELPER_FILE_LIMIT_BYTES, in_model=True
        )
        for path in helper_paths(component)
    }
    if "tokenizer_config.json" in files:
        config = load_json(component.path / "tokenizer_config.json", rules=CONFIG, in_model=True)
        files["tokenizer_config.json"] = _tokenizer_config(config, files["tokenizer_config.json"])
    if "tokenizer.json" in files and not _SLOW_FILES & files.keys():
        model = _tokenizer_model(component.path)
        if _is_byte_level(model):
            files["vocab.json"] = dump_json(model["vocab"])
            files["merges.txt"] = _merges(model["merges"])
    return files


def _tokenizer_config(config: dict[str, Any], source: bytes) -> bytes:
    """The configuration in keys that transformers 4 and 5 both know; the source's bytes where it is."""
    adapted = portable(config)
    adapted.pop("backend", None)  # the tokenizers library, which is what both take by themselves
    if isinstance(adapted.get("extra_special_tokens"), list):  # a mapping in transformers 4
        adapted.setdefault("additional_special_tokens", adapted.pop("extra_special_tokens"))
    return source if adapted == config else dump_json(adapted)


def _tokenizer_model(path: Path) -> dict[str, Any]:
    """The model in `tokenizer.json`."""
    tokenizer = load_json(
        path / "tokenizer.json", rules=CONFIG, limit_bytes=_TOKENIZER_LIMIT_BYTES, in_model=True
    )
    model = tokenizer.get("model")
    return model if isinstance(model, dict) else {}


def _is_byte_level(model: dict[str, Any]) -> bool:
    """True for byte-level byte-pair encoding, which `vocab.json` and `merges.txt` can express.

    Encodings converted from SentencePiece fall back to bytes instead.
    """
    complete = isinstance(model.get("vocab"), dict) and isinstance(model.get("merges"), list)
    return complete and model.get("type") == "BPE" and not model.get("byte_fallback")


def _merges(merges: list[Any]) -> bytes:
    """`merges.txt`, from pairs or from the older text of both."""
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    return ("#version: 0.2\n" + "".join(f"{line}\n" for line in lines)).encode()
