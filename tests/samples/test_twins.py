"""Outlier twins: the same function in floats, with channels that stand out."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file  # noqa: E402

from samples import twins  # noqa: E402
from samples.twins import rescalings, twin_state, write_twin  # noqa: E402
from tests.support.layers import ROOT  # noqa: E402

SAMPLES = ROOT / "samples"
DENOISERS = {"digits": "unet", "shapes": "unet", "shapes-mmdit": "transformer"}


def _sqnr_db(answer: "torch.Tensor", exact: "torch.Tensor") -> float:
    noise = (answer - exact).double().square().sum()
    return float(10 * torch.log10(exact.double().square().sum() / noise))


def _four_bits(values: "torch.Tensor", dims: tuple[int, ...]) -> "torch.Tensor":
    scale = values.abs().amax(dim=dims, keepdim=True).clamp(min=1e-9) / 7
    return (values / scale).round().clamp(-8, 7) * scale


def _quantize_inputs_and_weights(module: "torch.nn.Module") -> None:
    """Four bits for everything that linear layers of attention and feed-forward blocks multiply."""
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and {"attn1", "attn2", "attn", "attentions", "ff"} & {
            *name.split(".")
        }:
            layer.weight.data = _four_bits(layer.weight.data, (1,))
            layer.register_forward_pre_hook(
                lambda _, args: (_four_bits(args[0], tuple(range(args[0].dim()))), *args[1:])
            )


def _answer(folder: Path, *, four_bits: bool = False) -> "torch.Tensor":
    import diffusers

    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> "torch.Tensor":
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    kind = getattr(diffusers, json.loads((folder / "config.json").read_text())["_class_name"])
    model = kind.from_pretrained(folder, torch_dtype=torch.float32).double().eval()
    if four_bits:
        _quantize_inputs_and_weights(model)
    step = torch.tensor([500.0], dtype=torch.float64)
    calls = {
        diffusers.UNet2DModel: lambda: model(noise(1, 1, 16, 16), step),
        diffusers.UNet2DConditionModel: lambda: model(noise(1, 4, 8, 8), step, noise(1, 16, 128)),
        diffusers.SD3Transformer2DModel: lambda: model(
            noise(1, 4, 8, 8),
            noise(1, 16, model.config.joint_attention_dim),
            noise(1, model.config.pooled_projection_dim),
            step,
        ),
    }
    with torch.no_grad():
        return calls[kind]().sample


@pytest.mark.parametrize("name", DENOISERS)
def test_floats_stay_and_four_bits_fail(name: str, tmp_path: Path) -> None:
    plain, twin = SAMPLES / name / DENOISERS[name], tmp_path / name / DENOISERS[name]
    assert write_twin(plain, twin) >= 4
    exact = _answer(plain)
    assert _sqnr_db(_answer(twin), exact) >= 100
    lost = _sqnr_db(_answer(plain, four_bits=True), exact) - _sqnr_db(
        _answer(twin, four_bits=True), exact
    )
    assert lost >= 3, lost


def test_every_rescaling_matters_to_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factor that is not taken back is seen: the test above can fail."""
    plain, twin = SAMPLES / "digits" / "unet", tmp_path / "unet"
    taken = twins.rescalings

    def without_readers(state):  # type: ignore[no-untyped-def]
        first, *others = taken(state)
        return [twins.Rescaling(first.layers, (), first.channel), *others]

    monkeypatch.setattr(twins, "rescalings", without_readers)
    write_twin(plain, twin)
    assert _sqnr_db(_answer(twin), _answer(plain)) < 60


def test_text_encoders_have_twins_too() -> None:
    state = load_file(SAMPLES / "shapes" / "text_encoder" / "model.safetensors")
    found = tuple(rescalings(state))
    layers = {layer for one in found for layer, _ in one.layers}
    assert {name.rpartition(".")[2] for name in layers} == {"layer_norm1", "layer_norm2", "v_proj"}
    name = "text_model.encoder.layers.0.layer_norm1"
    channel = next(one.channel for one in found if one.layers[0][0] == name)
    changed = twin_state(state, found, 50.0)[f"{name}.weight"] / state[f"{name}.weight"].float()
    assert changed[channel] == pytest.approx(50)
    assert float(changed.sum()) == pytest.approx(50 + len(changed) - 1)


def test_a_folder_without_such_layers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no layer"):
        write_twin(tmp_path / "empty", tmp_path / "twin")
