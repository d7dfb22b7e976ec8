"""The trained pipelines: they load from their folders, and they draw what is asked for."""

import json

import numpy as np
import pytest
from safetensors import safe_open

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from samples.measure import draw, load, mean_accuracy  # noqa: E402
from samples.scenes import held_out_captions, pair_captions  # noqa: E402
from tests.support.layers import ROOT  # noqa: E402

SAMPLES = ROOT / "samples"
PIPELINES = {
    "shapes": "StableDiffusionPipeline",
    "shapes-mmdit": "StableDiffusion3Pipeline",
    "digits": "DDPMPipeline",
}
CAPTIONED = ("shapes", "shapes-mmdit")
LONGEST = {"shapes": {}, "shapes-mmdit": {"max_sequence_length": 16}}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # The pipelines are so small that more threads only wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipelines() -> dict[str, object]:
    return {}


def _load(name: str, loaded: dict[str, object]) -> object:
    if name not in loaded:
        loaded[name] = load(SAMPLES / name)
    return loaded[name]


@pytest.mark.parametrize("name", PIPELINES)
def test_loads_as_the_stock_class(name: str, pipelines: dict[str, object]) -> None:
    assert type(_load(name, pipelines)).__name__ == PIPELINES[name]


@pytest.mark.parametrize("name", PIPELINES)
def test_weights_are_finite_fp16_safetensors(name: str) -> None:
    files = [file for file in (SAMPLES / name).rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".json", ".txt", ".safetensors"}
    for file in files:
        if file.suffix != ".safetensors":
            continue
        with safe_open(file, "np") as weights:
            for key in weights.keys():  # noqa: SIM118
                tensor = weights.get_tensor(key)
                assert tensor.dtype == np.float16 or tensor.dtype.kind == "i", (file, key)
                assert np.isfinite(tensor).all(), (file, key)


def test_weights_are_small() -> None:
    sizes = {
        name: sum(file.stat().st_size for file in (SAMPLES / name).rglob("*.safetensors"))
        for name in PIPELINES
    }
    assert sizes["digits"] < 3e6
    assert sum(sizes.values()) < 60e6


@pytest.mark.parametrize("name", PIPELINES)
def test_configurations_name_no_path(name: str) -> None:
    for file in (SAMPLES / name).rglob("*.json"):
        if "config" not in file.name and file.name != "model_index.json":
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        assert "_name_or_path" not in content, file
        words = [value for value in content.values() if isinstance(value, str)]
        assert not [word for word in words if word.startswith("/")], file


@pytest.mark.parametrize("name", CAPTIONED)
def test_every_caption_fits_the_text_encoder(name: str, pipelines: dict[str, object]) -> None:
    words = _load(name, pipelines).tokenizer
    captions = [str(caption) for caption in pair_captions()]
    lengths = [len(ids) for ids in words(captions).input_ids]
    assert max(lengths) <= words.model_max_length == 16
    assert words.decode(words(captions[0]).input_ids, skip_special_tokens=True) == captions[0]


@pytest.mark.parametrize("name", CAPTIONED)
def test_latents_have_unit_deviation(name: str, pipelines: dict[str, object]) -> None:
    from samples.scenes import render_many
    from samples.train.vae import to_tensor

    vae = _load(name, pipelines).vae
    pictures = to_tensor(render_many(list(held_out_captions()[:32]), seed=21))
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert 0.8 < float(scaled.std()) < 1.2
    assert abs(float(scaled.mean())) < 0.2


@pytest.mark.parametrize("name", CAPTIONED)
def test_draws_held_out_captions(name: str, pipelines: dict[str, object]) -> None:
    captions = [str(caption) for caption in held_out_captions()[:8]]
    pipeline = _load(name, pipelines)
    assert mean_accuracy(pipeline, captions, steps=25, guidance=4.0, **LONGEST[name]) >= 0.8


def test_mmdit_draws_alike_with_any_sequence_length(pipelines: dict[str, object]) -> None:
    captions = [str(caption) for caption in held_out_captions()[:2]]
    pipeline = _load("shapes-mmdit", pipelines)
    short, long = (
        draw(pipeline, captions, 6, 4.0, max_sequence_length=length) for length in (16, 256)
    )
    assert np.abs(short - long).mean() < 0.05


def test_digits_are_drawn(pipelines: dict[str, object]) -> None:
    pictures = _load("digits", pipelines)(
        batch_size=8,
        num_inference_steps=12,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    assert pictures.shape == (8, 16, 16, 1)
    ink = pictures.mean((1, 2, 3))
    assert (ink > 0.08).all()
    assert (ink < 0.6).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPTIONED)
def test_accuracy_on_many_held_out_captions(name: str, pipelines: dict[str, object]) -> None:
    captions = [str(caption) for caption in held_out_captions()[:200]]
    pipeline = _load(name, pipelines)
    shares = [
        mean_accuracy(pipeline, captions[first : first + 25], steps=25, guidance=4.0)
        for first in range(0, 200, 25)
    ]
    assert np.mean(shares) >= 0.9
