"""Stored tensors that nothing takes: known to be of no use, or a refusal that says what they are.

A tensor that is stored and not read is an effect that is lost: an adapter, the scale of a quantized weight, a part of
another model. So each is accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from torch import nn

from qdx.exporter.errors import InvalidModel, quoted
from qdx.exporter.graph.ir.stored_names import renamed_by_transformers, stored_names

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.safetensors_file import Checkpoint

__all__ = ["check_all_taken", "missing_weight", "untaken"]

# Of no use to whoever computes with the model, whatever its class.
_DERIVED: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(^|\.)position_ids$",  # 0, 1, 2, ...: stored by transformers before 4.31
        r"(^|\.)rotary_emb\.(original_)?inv_freq$",  # powers of a number of the configuration
        r"(^|\.)num_batches_tracked$",  # how long a normalization was trained
    )
)
# A file's own mark that its 8-bit weights have scales, which are read beside each of them.
_MARKER: Final = re.compile(r"(^|\.)scaled_fp8$")
_SCALE: Final = re.compile(r"\.(weight_scale|weight_scale_inv|scale_weight)$")

_SAVE: Final = "pipeline.save_pretrained(FOLDER)"


@dataclass(frozen=True)
class _Kind:
    """Tensors of a name that tells what they are.

    Attributes:
        names: Finds them.
        what: What each is, to follow its name.
        way_out: What to do.
    """

    names: re.Pattern[str]
    what: str
    way_out: str


_ADAPTER: Final = _Kind(
    re.compile(
        r"\.(base_layer|lora_(A|B|up|down|mid|embedding_A|embedding_B|magnitude_vector|layer)|hada_w[12]_?[ab]?"
        r"|lokr_w[12]_?[ab]?|oft_[a-z]+|boft_[A-Za-z]+|vera_[A-Za-z_]+|ia3_l|modules_to_save|original_module)(\.|$)"
        r"|(^|\.)(lora_(unet|te\d?)_|processor\.\w+_lora\.)|\.lora\.(up|down)\."
    ),
    "part of an adapter such as LoRA; whether the other weights hold its effect already is not stored",
    "load the pipeline with its adapter, then `pipeline.fuse_lora()`, `pipeline.unload_lora_weights()`, "
    f"`{_SAVE}`; without `fuse_lora()` the adapter has no effect",
)
_IMAGE_PROMPT: Final = _Kind(
    re.compile(r"(^|\.)encoder_hid_proj\.|\.to_[kvq]_ip(\.|$)|(^|\.)ip_adapter\."),
    "part of an adapter for prompts that are images (IP-Adapter), which the configuration does not name",
    f"save the pipeline without it: `pipeline.unload_ip_adapter()`, `{_SAVE}`",
)
_QUANTIZED: Final = _Kind(
    re.compile(
        r"\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format|qweight|qzeros|scales|g_idx|_data"
        r"|_scale|_zero_point|weight_packed|weight_shape|comfy_quant|weight_scale(_\d|_inv)?|weight_zero_point"
        r"|scale_weight|input_scale|scale_input)$|\.quant_state\.|weight:_|(^|\.)scaled_fp8$"
    ),
    "part of weights that are quantized in a way that qdx does not read",
    "take the original model, and quantize it with a plan",
)
_SINGLE_FILE: Final = _Kind(
    re.compile(r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\."),
    "a weight in the layout of a single-file checkpoint, which is another than that of diffusers",
    f"load the file with diffusers: `pipeline = PIPELINE_CLASS.from_single_file(FILE)`, then `{_SAVE}`",
)
_KINDS: Final = (_ADAPTER, _IMAGE_PROMPT, _QUANTIZED, _SINGLE_FILE)
_LOST: Final = _Kind(
    re.compile(""),
    "weights that nothing reads are an effect that would be lost",
    "the weights belong to another class or configuration; if diffusers' own warning about unused weights is "
    f"expected, load the pipeline with diffusers and write it again: `{_SAVE}`",
)


def check_all_taken(
    module: nn.Module, checkpoint: Checkpoint, taken: Collection[str], component: str
) -> None:
    """Refuses a checkpoint with a tensor that serves nothing.

    Args:
        module: What its tensors are for.
        checkpoint: The tensors.
        taken: Those that are read.
        component: The module's name in the pipeline, for the message.

    Raises:
        InvalidModel: Naming the tensor, its file, what it is and what to do.
    """
    left = untaken(module, checkpoint, taken)
    if not left:
        return
    name, kind = _first_known(left) or (left[0], _LOST)
    more = f" and {len(left) - 1} more" if len(left) > 1 else ""
    raise InvalidModel(
        f"`{checkpoint.file_of(name)}`: nothing in `{component}` ({type(module).__name__}) takes tensor "
        f"{quoted(name)}{more}: {kind.what}",
        hint=kind.way_out,
    )


def missing_weight(
    checkpoint: Checkpoint, name: str, left: Sequence[str], component: str
) -> InvalidModel:
    """The error of a weight that is not stored, with what is stored instead.

    Args:
        checkpoint: The tensors that are stored.
        name: The missing weight.
        left: Stored tensors that nothing takes.
        component: The name of what it is for in the pipeline.
    """
    message = f"`{checkpoint.files[0]}`: component `{component}` has no weight `{name}`"
    known = _first_known(left)
    if known is None:
        return InvalidModel(
            message,
            hint="the checkpoint is incomplete or belongs to another model; save or fetch it again",
        )
    found, kind = known
    return InvalidModel(f"{message}; it holds {quoted(found)}, {kind.what}", hint=kind.way_out)


def untaken(module: nn.Module, checkpoint: Checkpoint, taken: Collection[str]) -> list[str]:
    """The stored tensors that serve nothing and are not known to be of no use, in the order of the files.

    Known are: what the class computes itself (its buffers, positions, frequencies), what its library ignores by the
    class's own list, the marks of files whose 8-bit weights are read with their scales, and parts of the larger class
    that the configuration says the weights were saved by.
    """
    known = {stored for name, _ in module.named_buffers() for stored in stored_names(module, name)}
    for name, stored in renamed_by_transformers(module, checkpoint).items():
        if name in known:
            known.update(stored)
    patterns = (*_DERIVED, *_ignored_by_class(module))
    if any(_SCALE.search(name) for name in taken):
        patterns = (*patterns, _MARKER)
    left = [
        name
        for name in checkpoint
        if name not in taken and name not in known and not any(p.search(name) for p in patterns)
    ]
    return [name for name in left if name.split(".")[0] not in _other_parts(module, left, taken)]


def _ignored_by_class(module: nn.Module) -> list[re.Pattern[str]]:
    """The class's own list of stored names that its library passes over; older versions had weights there."""
    listed = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    return [re.compile(pattern) for pattern in listed]


def _other_parts(module: nn.Module, left: Sequence[str], taken: Collection[str]) -> set[str]:
    """First words of tensors that belong to other parts of a larger transformers class, such as heads.

    A text encoder may be stored with the vision model that it was trained with; its configuration then names the
    class of both. No tensor inside what is read counts: an adapter would.
    """
    saved_by = getattr(getattr(module, "config", None), "architectures", None)
    if not isinstance(saved_by, list) or type(module).__name__ in saved_by:
        return set()
    inside = {name.split(".")[0] for name in taken}
    inside |= {name for name, _ in module.named_children()}
    return {name.split(".")[0] for name in left} - inside


def _first_known(names: Sequence[str]) -> tuple[str, _Kind] | None:
    """The first of the names that tells what it is."""
    found = ((name, kind) for kind in _KINDS for name in names if kind.names.search(name))
    return next(found, None)
