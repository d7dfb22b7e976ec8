"""Problems, analyses and pipelines for tests of the search."""

from __future__ import annotations

import itertools
import random
from types import MappingProxyType

import numpy as np

from qdx.analyze.analysis import Analysis, Option
from qdx.exporter.plan import AskedInputs, AskedWeights
from qdx.search.interactions import Interactions
from qdx.search.ledger import Measured
from qdx.search.outcomes import Pipeline
from qdx.search.problem import Choice, Part, Problem
from qdx.targets import load_target
from tests.support.plans import site

DIGEST = "0" * 64
OPTIONS = (
    Option(id=0, label="float", weights=None, inputs=None),
    Option(id=1, label="int8", weights=AskedWeights(dtype="int8"), inputs=None),
    Option(
        id=2,
        label="int8 / int8",
        weights=AskedWeights(dtype="int8"),
        inputs=AskedInputs(dtype="int8", symmetric=False),
    ),
    Option(
        id=3,
        label="int4 block 32",
        weights=AskedWeights(dtype="int4", granularity="block", block=32),
        inputs=None,
    ),
    Option(
        id=4, label="inputs int8", weights=None, inputs=AskedInputs(dtype="int8", symmetric=True)
    ),
)
"""Float, weights alone in eight and four bits, both, and products of two activations."""


def part(place, bits=(32, 8, 4, 2), sensitivity=1.0, elements=1000, **more):
    """A part whose options take some bits, with the noise of rounding to so many."""
    choices = tuple(
        Choice(
            option,
            MappingProxyType({"bytes": elements * width / 8, "bit_operations": float(width), "latency_ms": width / 32}),
            MappingProxyType({
                "prediction": 0.0 if option == 0 else sensitivity * 4.0**-width,
                "guidance": 0.0 if option == 0 else 3 * sensitivity * 4.0**-width,
            }),
            tie=str(width),
        )
        for option, width in enumerate(bits)
    )  # fmt: skip
    return Part(f"unet.layer.{place}", place, 1, elements, choices, **more)


def problem(sensitivities, bits=(32, 8, 4, 2), elements=None):
    """A problem with a part for each sensitivity."""
    sizes = elements or [1000] * len(sensitivities)
    parts = [
        part(place, bits, sensitivity, sizes[place])
        for place, sensitivity in enumerate(sensitivities)
    ]
    labels = tuple(f"{width} bits" for width in bits)
    return Problem(tuple(parts), labels, MappingProxyType({}), float_ms=bits[0] / 32 * len(parts))


def drawn(seed, count=6, bits=(32, 8, 4, 2)):
    """A problem of random sizes and sensitivities."""
    generator = random.Random(seed)
    sensitivities = [10 ** generator.uniform(-2, 2) for _ in range(count)]
    return problem(sensitivities, bits, [generator.randrange(100, 3000) for _ in range(count)])


def assignments(one):
    """Every assignment of a problem."""
    return itertools.product(*[[c.option for c in part.choices] for part in one.parts])


def interacting(one, strength=1.5):
    """Measures a problem in which neighbours' errors are of one sign: their noise is more than the sum."""

    def measure(batch):
        found = []
        for assignment in batch:
            alone = [
                p.choice(o).noise["prediction"] for p, o in zip(one.parts, assignment, strict=True)
            ]
            cross = sum((a * b) ** 0.5 for a, b in itertools.pairwise(alone))
            noise = {
                "prediction": sum(alone) + strength * cross,
                "guidance": one.noise(assignment, "guidance"),
            }
            found.append(Measured(noise))
        return found

    return measure


def correlated(one, seed, alike=0.8):
    """Errors of a problem's choices, whose squares are their noises; those of all parts have a direction in common."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal(50)
    rows = []
    for part in one.parts:
        own = generator.standard_normal(50)
        for choice in part.choices:
            row = alike * common * generator.choice([-1, 1]) + (1 - alike) * own
            rows.append(row / np.linalg.norm(row) * choice.noise["prediction"] ** 0.5)
    return Interactions(np.array(rows))


def together(one, errors, assignment):
    """The noise of an assignment, straight from the errors."""
    row, total = 0, 0
    for part, option in zip(one.parts, assignment, strict=True):
        total = total + errors.errors[row + [c.option for c in part.choices].index(option)]
        row += len(part.choices)
    return float(total @ total)


def unet_sites(blocks=2):
    """Sites of a UNet with convolutions, attention and shortcuts."""
    found = [
        site("conv_in", "conv2d", "first", shape=(32, 4, 3, 3)),
        site("time_embedding.linear_1", role="time_embed"),
        site("time_embedding.linear_2", role="time_embed"),
    ]
    for way, number in itertools.product(("down", "up"), range(blocks)):
        stage = f"{way}.{number}"
        for place in range(2):
            block = f"{way}_blocks.{number}.resnets.{place}"
            found += [
                site(f"{block}.norm1", "group_norm", "norm", stage, shape=(64,)),
                site(f"{block}.conv1", "conv2d", "conv", stage, shape=(64, 64, 3, 3)),
                site(f"{block}.time_emb_proj", "linear", "time_embed", stage),
                site(f"{block}.conv2", "conv2d", "conv", stage, shape=(64, 64, 3, 3)),
            ]
            if way == "up":
                found.append(site(f"{block}.conv_shortcut", "conv2d", "shortcut", stage, shape=(64, 64, 1, 1)))  # fmt: skip
        attention = f"{way}_blocks.{number}.attentions.0.transformer_blocks.0"
        found += [site(f"{attention}.attn1.to_{c}", "linear", f"attn.{c}", stage) for c in "qkv"]
        found += [
            site(f"{attention}.attn1.qk", "qk", "attn.qk", stage),
            site(f"{attention}.attn1.pv", "pv", "attn.pv", stage),
            site(f"{attention}.attn1.to_out.0", "linear", "attn.out", stage),
            site(f"{attention}.ff.net.0.proj", "linear", "ff.in", stage),
            site(f"{attention}.ff.net.2", "linear", "ff.out", stage),
        ]
    return (*found, site("conv_out", "conv2d", "last", shape=(4, 64, 3, 3)))


SITES = {
    "unet.forward": unet_sites(),
    "vae.decode": (site("conv", "conv2d", "conv", shape=(8, 8, 3, 3)),),
}


def pipeline(target="openvino"):
    """A pipeline of these sites."""
    kinds = {"unet": "denoiser", "vae": "decoder"}
    return Pipeline(("unet", "vae"), SITES, kinds, frozenset(), load_target(target))


def options_for(one):
    """The options that a target offers a site of the test."""
    if one.op in {"qk", "pv"}:
        return (0, 4)
    return (0, 1, 2, 3) if one.op == "linear" else (0, 1, 2)


def analysis(sites=None, sensitivity=None, **changes):
    """An analysis of the UNet's sites, a group for each; noise is that of rounding times a sensitivity by role."""
    factors = sensitivity or {}
    groups, rows = [], []
    chosen = [one for one in sites or SITES["unet.forward"] if one.op != "group_norm"]
    for number, one in enumerate(chosen):
        offers = []
        for option in options_for(one):
            width = {0: 32, 1: 8, 2: 8, 3: 4.5, 4: 32}[option]
            offers.append(
                {
                    "option": option,
                    "form": "float" if option == 0 else "native",
                    "bytes": round(one.weight_elements * width / 8),
                    "macs_low": one.macs if option in {2, 4} else 0,
                }
            )
            noise = 0.0 if option == 0 else {1: 1, 2: 4, 3: 60, 4: 2}[option] * 1e-6
            noise *= factors.get(one.role, 1.0)
            rows.append(
                {
                    "where": "unet.forward",
                    "group": number,
                    "option": option,
                    "prediction": noise,
                    "unconditional": noise,
                    "conditional": noise,
                    "guidance": 2 * noise,
                }
            )
        groups.append(
            {
                "id": number,
                "where": "unet.forward",
                "sites": [one.key],
                "bound_by": "",
                "op": one.op,
                "roles": [one.role],
                "stage": one.stage,
                "weight_elements": one.weight_elements,
                "macs": one.macs,
                "offers": offers,
            }
        )
    data = {
        "schema": "qdx.analysis/1",
        "versions": {"qdx": "0"},
        "model": {"pipeline_class": "Tiny", "files": {"unet/config.json": DIGEST}},
        "target": {"name": "openvino", "profile": DIGEST},
        "plan_base": {"name": "w8a8", "plan": DIGEST},
        "sampling": {"call": {}, "images": DIGEST, "prompts": None, "samples": 1, "steps": 2, "seed": 0},
        "options": [one.model_dump(mode="json", exclude_none=True, exclude_unset=True) | {"weights": _said(one.weights), "inputs": _said(one.inputs)} for one in OPTIONS],
        "groups": groups,
        "calls": [{"where": "unet.forward", "sample": 0, "call": 0, "step": 0, "timestep": 1.0, "prompt": None, "branch": "both", "weight": 1.0}],
        "noise": {"sha256": DIGEST, "measures": ["prediction", "unconditional", "conditional", "guidance"], "single": rows, "cumulative": []},
        **changes,
    }  # fmt: skip
    from qdx.exporter.files import dump_json

    return Analysis.model_validate_json(dump_json(data))


def timed_analysis(sensitivity=None, change_ns=0.0, source="declared"):
    """The analysis with times: eight bits of both take half of float, weights alone a tenth more; changes are of neighbours in the list."""
    from qdx.analyze.latency_job import with_latency
    from qdx.analyze.latency_table import Latency

    one = analysis(sensitivity=sensitivity)
    factors = {0: 1.0, 1: 1.1, 2: 0.5, 3: 1.1, 4: 0.5}
    keys = [key for group in one.groups for key in group.sites]
    table = {
        "schema": "qdx.latency/1",
        "source": source,
        "where": "unet.forward",
        "machine": None,
        "device": "Somebody's",
        "whole": (),
        "rest_ms": 2.0,
        "operations": tuple(
            {"operation": key, "option": option, "ms": factors[option] * 0.25, "sites": 1}
            for group in one.groups
            for key in group.sites
            for option in group.options
        ),
        "kind_of": {key: key for key in keys},
        "reads": ("float32", "float32", "int8", "float32", "int8"),
        "neighbours": tuple(
            {"maker": a, "reader": b, "elements": 1000} for a, b in itertools.pairwise(keys)
        ),
        "change_ns": change_ns,
    }
    return with_latency(one, Latency.model_validate({"graphs": (table,)}))


def _said(scheme):
    return None if scheme is None else scheme.model_dump(mode="json", exclude_unset=True)
