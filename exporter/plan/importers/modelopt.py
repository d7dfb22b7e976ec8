"""Configurations of NVIDIA ModelOpt: ordered entries that switch quantizers on and off by wildcard.

Both forms of `quant_cfg` are read, the list of entries and the older object keyed by wildcard, and `modelopt_config` of diffusers. An
entry's wildcard matches names of quantizers, `MODULE.weight_quantizer` and the like; what is left of it without these endings selects modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.modelopt_formats import SCHEME_KEYS, inputs_of, weights_of
from qdx.exporter.plan.importers.patterns import globs_of_fnmatch, without_suffix
from qdx.exporter.plan.importers.schemes import NoScheme, scheme_words
from qdx.exporter.plan.schema.rule import matcher

__all__ = ["ModelOpt"]

_PRODUCTS: Final = {"q_bmm": "qk", "k_bmm": "qk", "softmax": "pv", "v_bmm": "pv"}
"""Which product of attention a quantizer's tensor goes into."""
_KINDS: Final = ("weight", "input", "output", *_PRODUCTS, "bmm2_output")
_CLASSES: Final = {
    "nn.Linear": ("linear",),
    **{f"nn.{kind}{n}d": (f"{word}{n}d",) for kind, word in (("Conv", "conv"), ("ConvTranspose", "conv_transpose")) for n in (1, 2, 3)},
}  # fmt: skip
_DEFAULT_ENTRY: Final = "quantizers that no entry names keep ModelOpt's defaults"


@dataclass(frozen=True)
class _Entry:
    """One entry of `quant_cfg`, in the newer form.

    Attributes:
        place: Where it stands.
        pattern: Wildcard of quantizers.
        cfg: What they become; None where it only switches them.
        enable: Whether they are on.
        parent: Class of the modules that have them; None for all.
    """

    place: Foreign
    pattern: str
    cfg: Foreign | None
    enable: bool
    parent: str | None


class ModelOpt(PlanImporter):
    """Reads `{"quant_cfg": [...], "algorithm": ...}`."""

    tool = "modelopt"
    title = "NVIDIA ModelOpt"
    reads = "JSON or YAML with `quant_cfg`, or a `quantization_config` of diffusers with `modelopt_config`"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        inner = data.get("quantization_config", data)
        return "quant_cfg" in data or (
            isinstance(inner, dict) and inner.get("quant_method") == "modelopt"
        )

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        config = root.find("quantization_config") or root
        if config.find("modelopt_config") is not None:
            draft.refuse_others(config, _DIFFUSERS_KEYS)
            config = config.need("modelopt_config")
        draft.refuse_others(config, ("quant_cfg", "algorithm"), harmless=("metadata",))
        reader = _Reader(draft)
        entries = list(_entries(config.need("quant_cfg")))
        if not entries or not _switches_all_off(entries[0]):
            reader.defaults(config.need("quant_cfg"))
        for entry in entries:
            reader.take(entry)
        reader.finish(config.need("quant_cfg"))
        algorithm = config.find("algorithm")
        if algorithm is not None:
            _algorithm(algorithm, draft)


_DIFFUSERS_KEYS: Final = (
    "quant_method", "quant_type", "modelopt_config", "modules_to_not_convert", "weight_only", "channel_quantize",
    "block_quantize", "scale_channel_quantize", "scale_block_quantize", "algorithm", "forward_loop", "calib_cfg", "disable_conv_quantization",
)  # fmt: skip


def _entries(quant_cfg: Foreign) -> Iterator[_Entry]:
    """The entries of either form; `default` of the older one holds before all others."""
    if isinstance(quant_cfg.value, dict):
        members = sorted(quant_cfg.members(), key=lambda pair: pair[0] != "default")
        for name, value in members:
            yield from _of_pair("*" if name == "default" else name, value)
        return
    for item in quant_cfg.items():
        named = item.find("quantizer_name")
        if named is None:
            for name, value in item.members():
                yield from _of_pair("*" if name == "default" else name, value)
            continue
        for key, other in item.others(("quantizer_name", "cfg", "enable", "parent_class")):
            other.fail(f"no key {quoted(key)}")
        attributes, enable, parent = (
            item.find("cfg"),
            item.find("enable"),
            item.find("parent_class"),
        )
        if attributes is None and enable is None:
            item.fail("`cfg`, `enable` or both")
        yield _Entry(
            item,
            named.text(),
            attributes,
            True if enable is None else enable.boolean(),
            None if parent is None else parent.text(),
        )


def _of_pair(name: str, value: Foreign, parent: str | None = None) -> Iterator[_Entry]:
    """Entries of the older form: a wildcard, or a class with wildcards of its own."""
    if parent is None and name.startswith("nn."):
        for pattern, cfg in value.members():
            yield from _of_pair(pattern, cfg, name)
        return
    if isinstance(value.value, list):
        yield _Entry(value, name, value, True, parent)
        return
    enable = value.find("enable")
    rest = {key: one for key, one in value.value.items() if key != "enable"}
    attributes = Foreign(rest, value.source, value.path) if rest else None
    yield _Entry(value, name, attributes, True if enable is None else enable.boolean(), parent)


def _switches_all_off(entry: _Entry) -> bool:
    return entry.pattern == "*" and entry.cfg is None and not entry.enable and entry.parent is None


class _Reader:
    """Entries as rules, in their order."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._products: dict[str, tuple[tuple[str, ...], dict[str, Any] | None, Foreign]] = {}
        self._on: set[str] = set()

    def defaults(self, place: Foreign) -> None:
        """What quantizers are that nobody switches off: eight bits."""
        self._draft.rule(
            "defaults",
            op=WEIGHTED,
            why=_DEFAULT_ENTRY,
            weights={"dtype": "int8", "granularity": "channel", "symmetric": True},
            inputs={"dtype": "int8", "symmetric": True},
        )
        self._on |= {"weight", "input"}
        self._draft.exact(place, f"{_DEFAULT_ENTRY}: weights and inputs in 8 bits")
        self._draft.approximate(
            place, f"{_DEFAULT_ENTRY} in attention too: its products stay float here unless an entry names their quantizers"
        )  # fmt: skip

    def take(self, entry: _Entry) -> None:
        draft = self._draft
        if _switches_all_off(entry) and not draft.rules:
            draft.exact(entry.place, "everything is float that no later entry quantizes")
            return
        if entry.parent is not None and entry.parent not in _CLASSES:
            if entry.enable:
                draft.refuse(entry.place, f"quantizers of {quoted(entry.parent)}: rules quantize convolutions, linear layers and attention")  # fmt: skip
            else:
                draft.exact(entry.place, f"{quoted(entry.parent)}: no rule quantizes what is in it")
            return
        globs = draft.globs(entry.place, entry.pattern, globs_of_fnmatch)
        if globs is None:
            return
        matched: dict[str, tuple[str, ...]] = {}
        # Convolutions and linear layers, which alone can be named as parents here, have no products of attention.
        for kind in _KINDS if entry.parent is None else _KINDS[:3]:
            found = dict.fromkeys(
                one for glob in globs for one in without_suffix(glob, f".{kind}_quantizer")
            )
            if found:
                matched[kind] = ("*",) if "*" in found else tuple(found)
        if not matched:
            draft.exact(entry.place, f"{quoted(entry.pattern)} matches no quantizer of a model")
        elif not entry.enable:
            self._switch_off(entry, matched)
        elif entry.cfg is None:
            draft.refuse(entry.place, "switches quantizers on again without saying what they are; repeat `cfg`")  # fmt: skip
        else:
            self._switch_on(entry, entry.cfg, matched)

    def _switch_off(self, entry: _Entry, matched: Mapping[str, tuple[str, ...]]) -> None:
        draft = self._draft
        parts: dict[tuple[str, ...], dict[str, Any]] = {}
        if "weight" in matched and "weight" in self._on:
            parts.setdefault(matched["weight"], {})["weights"] = {"dtype": "float"}
        if "input" in matched and "input" in self._on:
            parts.setdefault(matched["input"], {})["inputs"] = {"dtype": "float32"}
        for modules, given in parts.items():
            asked = {"keep": "float"} if len(given) > 1 else given
            draft.rule("off", op=self._operations(entry), modules=modules, **asked)
        for kind in _PRODUCTS:
            if kind in matched:
                self._products[kind] = (matched[kind], None, entry.place)
                self._settle(kind)
        draft.exact(entry.place, f"{quoted(entry.pattern)} stays float")

    def _switch_on(
        self, entry: _Entry, cfg: Foreign, matched: Mapping[str, tuple[str, ...]]
    ) -> None:
        draft = self._draft
        if isinstance(cfg.value, list):
            draft.refuse(cfg, "one quantizer behind another: an artifact has one for each tensor")
            return
        draft.refuse_others(cfg, SCHEME_KEYS)
        try:
            if "weight" in matched:
                weights, note = weights_of(cfg)
                operations = tuple(
                    one for one in self._operations(entry)
                    if weights["granularity"] != "channel" or "transpose" not in one
                )  # fmt: skip
                draft.rule("weights", op=operations, modules=matched["weight"], weights=weights)
                self._on.add("weight")
                draft.noted(cfg, f"weights {scheme_words(dict(weights))}", note)
            if "input" in matched:
                inputs, note = inputs_of(cfg)
                draft.rule(
                    "inputs", op=self._operations(entry), modules=matched["input"], inputs=inputs
                )
                self._on.add("input")
                note = "; ".join(filter(None, [note, self._norms(matched["input"])]))
                draft.noted(cfg, f"inputs {scheme_words(dict(inputs))}", note)
            for kind in ("output", "bmm2_output"):
                if kind in matched and matched[kind] != ("*",):
                    draft.refuse(cfg, f"`{kind}_quantizer`: rules quantize what an operation reads, not its result")  # fmt: skip
            if any(kind in matched for kind in _PRODUCTS):
                inputs, note = inputs_of(cfg)
                for kind in _PRODUCTS:
                    if kind in matched:
                        self._products[kind] = (matched[kind], inputs, cfg)
                for kind in ("q_bmm", "v_bmm"):
                    if any(
                        _PRODUCTS[one] == _PRODUCTS[kind] for one in matched if one in _PRODUCTS
                    ):
                        self._settle(kind)
        except NoScheme as bad:
            draft.refuse(cfg, str(bad))

    def _settle(self, kind: str) -> None:
        """A rule for a product of attention once both of its inputs are known to be alike."""
        product = _PRODUCTS[kind]
        both = [one for one, of in _PRODUCTS.items() if of == product]
        states = [self._products.get(one) for one in both]
        if any(one is None for one in states):
            return
        first, second = (one[:2] for one in states if one is not None)
        if first != second:
            return
        modules, inputs = first
        if inputs is None and not any(
            rule["select"]["op"] == product for rule in self._draft.rules
        ):
            return
        keys = None if modules == ("*",) else tuple(f"{one}.{product}" for one in modules)
        self._draft.rule(
            f"attention-{product}",
            op=(product,),
            modules=keys,
            inputs=inputs or {"dtype": "float32"},
            when=None if inputs is None else "always",
        )

    def finish(self, place: Foreign) -> None:
        """Says what became of attention, whose products have two inputs each."""
        for product in ("qk", "pv"):
            both = [one for one, of in _PRODUCTS.items() if of == product]
            states = [self._products.get(one) for one in both]
            on = [one[1] for one in states if one is not None and one[1] is not None]
            if not on:
                continue
            known = [None if one is None else one[:2] for one in states]
            if known[0] == known[1]:
                self._draft.exact(place, f"`{product}`: both inputs {scheme_words(on[0])}")
            else:
                self._draft.refuse(
                    place, f"`{product}`: {' and '.join(f'`{one}_quantizer`' for one in both)} differ; a product's inputs have one scheme"
                )  # fmt: skip

    def _norms(self, modules: tuple[str, ...]) -> str:
        """What is said of norms, whose inputs ModelOpt quantizes too."""
        sites = self._draft.sites
        if sites is not None:
            test = matcher(modules)
            if not any("norm" in one.op and test(one.fqn) for one in sites):
                return ""
        return "inputs of norms and pools that it selects too stay float"

    def _operations(self, entry: _Entry) -> tuple[str, ...]:
        return WEIGHTED if entry.parent is None else _CLASSES[entry.parent]


def _algorithm(place: Foreign, draft: Draft) -> None:
    """The method that chooses ranges, or changes weights before they are rounded."""
    plain = isinstance(place.value, str)
    method = place.text() if plain else place.need("method").text()
    if not plain:
        for key, other in place.others(("method", "alpha")):
            if method not in {"max", "smoothquant"}:
                continue
            draft.refuse(other, f"key {quoted(key)} is not read here")
    if method == "max":
        draft.exact(place, "ranges of all values")
    elif method == "smoothquant":
        found = None if plain else place.find("alpha")
        alpha = 1.0 if found is None else found.number()
        if not 0 <= alpha <= 1:
            place.fail("`alpha` from 0 to 1")
        if not any("inputs" in rule for rule in draft.rules):
            draft.refuse(place, "smoothing, and no quantized inputs to smooth")
            return
        draft.options["smoothing"] = {"alpha": alpha}
        draft.approximate(
            place,
            f"smoothing with alpha {alpha:g}: the same formula, for convolutions too, and without ModelOpt's bounds of its factors from 1e-4 to 1e4",
        )
    else:
        draft.refuse(place, f"method {quoted(method)} changes scales or weights in ways that the plan does not say; weights are rounded to the nearest")  # fmt: skip
