"""What quantized graphs answered: remembered to the bit, and never mistaken for the answer to something else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from qdx.backends.registry import get_backend
from qdx.bundle.manifest import InputPort, OutputPort
from qdx.cache.numbers import StoredNumbers
from qdx.cache.store import Store
from qdx.exporter.devices import CPU
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import TensorSpec
from qdx.exporter.transforms.bias_correction import CorrectBias
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.recipe import Recipe, quantized_graph
from qdx.runtime.methods import TargetMethod
from qdx.runtime.tensor_folder import TensorFolder
from qdx.verification.measure.answers import KIND, Answers, graph_identity
from qdx.verification.measure.rungs import QUANTIZED, Rung
from tests.support.onnxruntime_quantized import A8, W8, FixedRanges, resolved, weighted
from tests.support.tracing import Block, block_inputs, graph_of

WHERE = "unet.forward"
X = {"x": torch.tensor([0.1, -3.0])}


def method(*fields):
    """Something that takes `x` and answers with these fields."""
    port = InputPort(argument="x", name="x", dtype="float32", shape=(2,))
    outputs = tuple(OutputPort(field=f, name=f, dtype="float32", shape=(2,)) for f in fields)
    return TargetMethod(WHERE, (port,), outputs, {}, None)


class Counted:
    """A rung that counts its runs, and whose answers are hard to guess."""

    def __init__(self):
        self.runs = 0

    def __call__(self, tensors):
        self.runs += 1
        return {"y": tensors["x"] / 3, "z": tensors["x"].sin()}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def verification(tmp_path):
    """The answers of one verification."""
    numbers = iter(range(100))

    def begin(store=None, identity="a"):
        scratch = tmp_path / f"scratch-{next(numbers)}"
        scratch.mkdir()
        memory = None if store is None else StoredNumbers(store, KIND)
        return Answers({WHERE: identity}, TensorFolder(scratch), memory)

    return begin


def rung_of(answers, computing, *, fields=("y", "z")):
    return answers.remembered(Rung(QUANTIZED, computing), method(*fields))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_call_is_computed_once_without_a_store_too(verification):
    computing, answers = Counted(), verification()
    rung = rung_of(answers, computing)
    first = rung.run(dict(X))
    first["y"].zero_()  # who compares may do as they like
    again = rung.run(dict(X))

    assert computing.runs == 1
    assert same(again, Counted()(X))
    assert (answers.use.ran, answers.use.cached) == (1, 0)


def test_the_next_verification_finds_the_same_bits(verification, store):
    computing, later = Counted(), verification(store)
    rung_of(verification(store), computing).run(dict(X))
    found = rung_of(later, computing).run(dict(X))

    assert computing.runs == 1
    assert same(found, Counted()(X))
    assert (later.use.ran, later.use.cached) == (0, 1)


def test_without_a_store_the_next_verification_computes(verification):
    computing = Counted()
    for _ in range(2):
        rung_of(verification(), computing).run(dict(X))

    assert computing.runs == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"x": {"x": torch.tensor([0.1, -3.0000002])}},
        {"identity": "b"},
        {"fields": ("y",)},
    ],
    ids=str,
)
def test_another_call_graph_or_set_of_outputs_is_computed(verification, store, changed):
    def run(x=X, identity="a", fields=("y", "z")):
        rung_of(verification(store, identity), computing, fields=fields).run(dict(x))

    computing = Counted()
    run()
    run(**changed)

    assert computing.runs == 2


def test_a_damaged_answer_is_computed_anew(verification, store):
    computing = Counted()
    rung_of(verification(store), computing).run(dict(X))
    (file,) = store.root.rglob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found = rung_of(verification(store), computing).run(dict(X))

    assert computing.runs == 2
    assert same(found, Counted()(X))
    assert any("damaged" in note for note in store.notes)


def test_what_lockstep_has_computed_is_not_computed_again(verification):
    computing, answers = Counted(), verification()
    outputs = Counted()(X)
    answers.keep(method("y"), X, outputs)
    found = rung_of(answers, computing, fields=("y",)).run(dict(X))

    assert computing.runs == 0
    assert same(found, {"y": outputs["y"]})


def test_timing_computes_anew(verification):
    computing = Counted()
    rung = rung_of(verification(), computing)
    rung.run(dict(X))
    rung.fresh(dict(X))

    assert computing.runs == 2


def quantized(*, target="openvino", scale=1.0):
    """A quantized graph and its recipe; the scale is that of one of its quantizers, of what the ranges say."""
    graph, _ = graph_of(Block, block_inputs())
    plan = resolved(graph, weighted(W8, A8))
    place = get_backend(target).place
    placement = place(graph, sites(graph), plan, FixedRanges())
    first, *others = placement.sites
    inputs = {i: replace(q, scale=scale * q.scale) for i, q in first.inputs.items()}
    placement = replace(placement, sites=(replace(first, inputs=inputs), *others))
    recipe = Recipe(graph.where, (InsertQuantizers(placement.sites),))
    return quantized_graph(graph, recipe), recipe


def identity(graph, recipe, *, source=None, device=CPU):
    return graph_identity(graph, recipe, {"a": "0"} if source is None else source, device)


def test_the_same_graph_made_twice_is_the_same():
    assert identity(*quantized()) == identity(*quantized())


def test_another_scale_in_the_last_bit_is_another_graph():
    assert identity(*quantized()) != identity(*quantized(scale=1 + 2**-23))


def test_two_targets_that_place_the_same_quantizers_have_the_same_graph():
    assert identity(*quantized()) == identity(*quantized(target="onnxruntime"))


def test_another_model_device_or_number_of_threads_is_another_graph():
    graph, recipe = quantized()
    threads = torch.get_num_threads()
    found = [identity(graph, recipe), identity(graph, recipe, source={"a": "1"})]
    torch.set_num_threads(threads + 1)
    try:
        found.append(identity(graph, recipe))
    finally:
        torch.set_num_threads(threads)

    assert len(set(found)) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"where": "vae.decode"},
        {"program": SimpleNamespace(graph="return sin(x)")},
        {"parameters": {"w": "other.weight"}},
        {"buffers": {"b": torch.tensor([1.0, 2.0000002])}},
        {"buffers": {"b": torch.tensor([[1.0, 2.0]])}},
        {"inputs": (TensorSpec("x", "float16", (2,)),)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_decides_the_answer_makes_another_graph(changed):
    own = {
        "where": WHERE,
        "program": SimpleNamespace(graph="return cos(x)"),
        "parameters": {"w": "some.weight"},
        "buffers": {"b": torch.tensor([1.0, 2.0])},
        "inputs": (TensorSpec("x", "float32", (2,)),),
        "outputs": (),
    }
    recipe = Recipe(WHERE, (InsertQuantizers(()),))

    assert identity(SimpleNamespace(**own), recipe) == identity(SimpleNamespace(**own), recipe)
    assert identity(SimpleNamespace(**own), recipe) != identity(
        SimpleNamespace(**{**own, **changed}), recipe
    )


def test_another_recipe_is_another_graph():
    graph, recipe = quantized()
    weight = recipe.placement.sites[0].weight
    means = [
        CorrectBias({"to_q": weight}, {"to_q": torch.tensor([1.0, last])}) for last in (2.0, 3.0)
    ]

    recipes = [recipe, *(replace(recipe, transforms=(one, *recipe.transforms)) for one in means)]
    assert len({identity(graph, one) for one in recipes}) == 3
