"""Adapters that an opened pipeline loads: the picture is that of diffusers with them, and what cannot count is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.torch import load_file

import qdx
from qdx.exporter.errors import InvalidInput, UsageError
from qdx.runtime.generate import generate
from tests.support.loras import random_pairs, write_lora
from tests.support.smallest import build_smallest_text_to_image

pytest.importorskip("onnxruntime")
pytest.importorskip("peft")

CALL = {"prompt": "a red fox", "num_inference_steps": 2, "height": 16, "width": 16}
RANK = 8
FIRST = ("to_q", "to_v", "to_out.0", "proj_in", "ff.net.0.proj", "ff.net.2")
SECOND = ("to_k", "to_v", "proj_out", "time_emb_proj")


def drawn(pipeline, **call):
    return generate(pipeline, {**CALL, "output_type": "np", **call}, seed=1)["images"]


def psnr_db(one, other):
    return 10 * np.log10(np.ptp(other) ** 2 / np.mean((one - other) ** 2))


class Case:
    """A pipeline, a bundle of its denoiser that takes adapters, and two adapters of rank 4."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.model = build_smallest_text_to_image(folder / "model")
        self.bundle = qdx.export(
            self.model, target="onnxruntime", plan="float32", output=folder / "bundle",
            call=CALL, components=["unet"], lora_ready=RANK,
        ).bundle  # fmt: skip
        unet = self.stock().unet
        self.first = write_lora(
            folder / "first.safetensors", unet=random_pairs(unet, FIRST, seed=3)
        )
        self.second = write_lora(
            folder / "second.safetensors", unet=random_pairs(unet, SECOND, seed=4)
        )
        self.unet = unet

    def stock(self):
        from diffusers import DiffusionPipeline

        return quiet(DiffusionPipeline.from_pretrained(self.model))

    def opened(self):
        return quiet(qdx.open(self.bundle, model=self.model))

    def written(self, name: str, endings, **options):
        return write_lora(self.folder / name, unet=random_pairs(self.unet, endings, **options))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", name="case")
def _case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("case"))


def test_pictures_are_those_of_diffusers_and_the_plain_one_comes_back_bit_for_bit(case):
    stock, opened = case.stock(), case.opened()
    plain, before = drawn(stock), drawn(opened)
    assert psnr_db(before, plain) > 90

    def check(change, **call):
        for pipeline in (stock, opened):
            change(pipeline)
        expected = drawn(stock, **call)
        assert psnr_db(plain, expected) < 50
        assert psnr_db(drawn(opened, **call), expected) > 90
        assert opened.get_active_adapters() == stock.get_active_adapters()
        assert opened.get_list_adapters() == stock.get_list_adapters()

    check(lambda p: p.load_lora_weights(str(case.first)))
    check(lambda p: None, cross_attention_kwargs={"scale": 0.5})
    check(lambda p: p.load_lora_weights(case.folder, weight_name="second.safetensors", adapter_name="b"))  # fmt: skip
    check(lambda p: p.set_adapters(["default_0", "b"], [0.7, {"unet": -0.4}]))
    opened.disable_lora()
    assert np.array_equal(drawn(opened), before)
    opened.enable_lora()
    check(lambda p: p.fuse_lora(components=["unet"]))
    check(lambda p: p.unfuse_lora(components=["unet"]))
    check(lambda p: p.delete_adapters("b"))
    opened.unload_lora_weights()
    assert np.array_equal(drawn(opened), before)


def test_what_is_fused_stays_and_later_adapters_come_on_top(case):
    stock, opened = case.stock(), case.opened()
    for pipeline in (stock, opened):
        pipeline.load_lora_weights(str(case.first))
        pipeline.fuse_lora(lora_scale=0.5)
        pipeline.unload_lora_weights()
    fused = drawn(stock)
    assert psnr_db(drawn(opened), fused) > 90
    for pipeline in (stock, opened):
        pipeline.load_lora_weights(str(case.second))
    expected = drawn(stock, cross_attention_kwargs={"scale": 0.6})
    assert psnr_db(expected, fused) < 50
    assert psnr_db(drawn(opened, cross_attention_kwargs={"scale": 0.6}), expected) > 90


def test_an_adapter_in_memory_is_taken_and_replaced(case):
    opened = case.opened()
    opened.load_lora_weights(str(case.second), adapter_name="one")
    expected = drawn(opened)
    opened.unload_lora_weights()
    opened.load_lora_weights(load_file(case.first), adapter_name="one")
    assert psnr_db(drawn(opened), expected) < 50

    opened.load_lora_weights(load_file(case.second), adapter_name="one", hotswap=True)

    assert np.array_equal(drawn(opened), expected)


def test_ranks_beyond_the_bundles_are_refused_and_change_nothing(case):
    opened = case.opened()
    large = case.written("large.safetensors", ("to_q",), rank=RANK + 1)
    six = case.written("six.safetensors", ("to_q",), rank=6)
    with pytest.raises(UsageError, match=r"rank at `unet\..*to_q` is 9, and the bundle takes 8"):
        opened.load_lora_weights(str(large))
    assert opened.get_list_adapters() == {}
    opened.load_lora_weights(str(six), adapter_name="six")
    opened.load_lora_weights(str(case.first), adapter_name="four")

    with pytest.raises(UsageError, match=r"`six` \(6\), `four` \(4\) are 10 together"):
        opened.set_adapters(["six", "four"])

    assert opened.get_active_adapters() == ["four"]


def test_an_adapter_without_weight_has_no_rank(case):
    opened = case.opened()
    six = case.written("six.safetensors", ("to_q",), rank=6)
    opened.load_lora_weights(str(case.first), adapter_name="four")
    opened.load_lora_weights(str(six), adapter_name="six")
    expected = drawn(opened)

    opened.set_adapters(["six", "four"], [1.0, 0.0])

    assert np.array_equal(drawn(opened), expected)


@pytest.mark.parametrize(
    ("component", "ending", "words"),
    [
        (
            "text_encoder",
            "q_proj",
            r"`text_encoder\..*`, and of the bundle's components unet takes",
        ),
        ("unet", "conv1", r"`unet\.down_blocks\.0\.resnets\.0\.conv1`, which takes no adapter"),
    ],
)
def test_layers_without_inputs_are_refused_by_name(case, component, ending, words):
    module = getattr(case.stock(), component)
    file = write_lora(case.folder / "x.safetensors", **{component: random_pairs(module, (ending,))})

    with pytest.raises(UsageError, match=words):
        case.opened().load_lora_weights(str(file))


def test_wrong_uses_are_refused(case):
    opened = case.opened()
    opened.load_lora_weights(str(case.first), adapter_name="one")
    for words, use in {
        "no file or folder here": lambda: opened.load_lora_weights("someone/style"),
        "could be, expected one": lambda: opened.load_lora_weights(case.model),
        "no option `prefix`": lambda: opened.load_lora_weights(str(case.first), prefix="x"),
        "there is an adapter `one`": lambda: opened.load_lora_weights(str(case.first), "one"),
        "there is no adapter `two`": lambda: opened.load_lora_weights(
            str(case.first), "two", hotswap=True
        ),
        "there is no adapter `x`": lambda: opened.set_adapters("x"),
        "1 adapters and 2 weights": lambda: opened.set_adapters("one", [1.0, 2.0]),
        "weights of its own for blocks": lambda: opened.set_adapters("one", {"unet": {"down": 1}}),
        "its weight is nan": lambda: opened.set_adapters("one", math.nan),
        "its weight is inf": lambda: drawn(opened, cross_attention_kwargs={"scale": math.inf}),
        "has no effect on a pipeline": lambda: opened.load_textual_inversion("x"),
    }.items():
        with pytest.raises(UsageError, match=words):
            use()
    opened.fuse_lora()
    with pytest.raises(UsageError, match="no effect while `one` are fused"):
        opened.set_adapters("one", 0.5)
    with pytest.raises(InvalidInput, match="DoRA"):
        case.opened().load_lora_weights({"unet.x.lora_magnitude_vector": case.unet.conv_in.bias})
