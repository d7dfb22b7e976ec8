"""Components of a pipeline compute on a GPU, with copies of weights that stay where they are."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.capture import capture
from qdx.exporter.capture.distributions import flatten_output
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.devices import CPU
from qdx.runtime import placed_modules
from qdx.runtime.placed_modules import ModulePlacer, modules_on
from tests.support.fake_gpu import GPU, MIXED, no_values
from tests.support.fake_indexing import ByOperators
from tests.support.tiny import FAMILIES, build

FAST = ("sd", "sd3")
EVERY = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
ROOM = 2**40


class Layers(nn.Module):
    """Makes a tensor of its own, and has a buffer and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))
        self.seen: list[torch.device] = []

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.two(self.one(self.one(x))) + self.shift + torch.arange(4)
        self.seen.append(y.device)
        return {"y": y, "device": self.one.weight.device}


def call_of(module: nn.Module, x: torch.Tensor) -> LiveCall:
    return LiveCall("unet", "forward", module.forward, {"x": x})


def test_everything_a_component_makes_lies_on_the_device_and_its_answer_does_not():
    with no_values():
        module = Layers()
        answer = ModulePlacer(GPU, {"unet": module}, ROOM).compute(
            call_of(module, torch.empty(2, 4))
        )
        assert module.seen == [GPU]
        assert answer["y"].device == CPU
        assert answer["device"] == CPU, "the pipeline sees its components where it is itself"


def test_a_tensor_that_stays_behind_is_an_error(monkeypatch):
    original = placed_modules.Copies.of
    with no_values():
        module = Layers()
        placer = ModulePlacer(GPU, {"unet": module}, ROOM)
        left = module.shift
        monkeypatch.setattr(
            placed_modules.Copies,
            "of",
            lambda self, tensor: tensor if tensor is left else original(self, tensor),
        )
        with pytest.raises(Exception, match=MIXED):
            placer.compute(call_of(module, torch.empty(2, 4)))


def test_weights_are_copied_once_where_they_fit(monkeypatch):
    copied: Counter[tuple[int, ...]] = Counter()
    upload = placed_modules.Upload.__call__

    def counted(self, tensor):
        copied[tuple(tensor.shape)] += 1
        return upload(self, tensor)

    monkeypatch.setattr(placed_modules.Upload, "__call__", counted)
    with no_values():
        module = Layers()
        placer = ModulePlacer(GPU, {"unet": module}, ROOM)
        for _ in range(3):
            placer.compute(call_of(module, torch.empty(2, 4)))
        assert copied == {(2, 4): 3, (4, 4): 2, (4,): 3}
        assert placer.copies.size_bytes == 4 * (2 * 16 + 3 * 4)


def test_weights_that_do_not_fit_are_copied_for_each_operation():
    with no_values():
        module = Layers()
        placer = ModulePlacer(GPU, {"unet": module}, 64)
        answer = placer.compute(call_of(module, torch.empty(2, 4)))
        assert answer["y"].device == CPU
        assert 0 < placer.copies.size_bytes <= 64


def test_a_component_makes_room_for_the_next():
    with no_values():
        modules = {"one": Layers(), "two": Layers()}
        placer = ModulePlacer(GPU, modules, 4 * (2 * 16 + 3 * 4))
        for name, module in modules.items():
            placer.compute(LiveCall(name, "forward", module.forward, {"x": torch.empty(2, 4)}))
            assert set(placer.copies._kept) == {name}
        placer.copies.drop("two")
        assert placer.copies.size_bytes == 0


def test_weights_that_were_replaced_are_not_computed_with():
    with no_values():
        module = Layers()
        placer = ModulePlacer(GPU, {"unet": module}, ROOM)
        placer.compute(call_of(module, torch.empty(2, 4)))
        before = placer.copies.size_bytes
        module.one = nn.Linear(4, 4)
        placer.compute(call_of(module, torch.empty(2, 4)))
        assert placer.copies.size_bytes == before


def test_on_the_processor_nothing_is_routed():
    module = Layers()
    with modules_on({"unet": module}, CPU):
        assert "forward" not in vars(module)


@pytest.mark.parametrize("family", EVERY)
def test_components_of_all_families_compute_where_they_are_told(family, tmp_path):
    skeleton = build_skeleton(read_pipeline_folder(build(family, tmp_path / "model")))
    records = capture(skeleton, FAMILIES[family].arguments(), shapes="static").calls
    with no_values(), ByOperators(), torch.no_grad():
        for module in skeleton.modules.values():
            _without_values(module)
        placer = ModulePlacer(GPU, skeleton.modules, ROOM)
        for record in records.values():
            module = skeleton.modules[record.component]
            arguments = pytree.tree_map_only(
                torch.Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype), record.arguments
            )
            original = getattr(module, record.method)
            answer = placer.compute(LiveCall(record.component, record.method, original, arguments))
            assert {one.device for one in flatten_output(answer).values()} == {CPU}


def _without_values(module: nn.Module) -> None:
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            owner.register_parameter(name, nn.Parameter(empty, requires_grad=False))
        for name, buffer in list(owner.named_buffers(recurse=False)):
            owner._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        for name, plain in list(vars(owner).items()):
            if isinstance(plain, torch.Tensor):
                setattr(owner, name, torch.empty(plain.shape, dtype=plain.dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_answers_what_the_processor_answers():
    torch.manual_seed(0)
    module, x = Layers(), torch.randn(2, 4)
    expected = module(x)["y"]
    found = ModulePlacer(torch.device("cuda", 0), {"unet": module}).compute(call_of(module, x))["y"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
