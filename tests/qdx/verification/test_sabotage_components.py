"""The check must be seen failing: wrong artifacts, each of which a gate has to stop."""

from __future__ import annotations

import copy

import pytest
import torch

from qdx.exporter.errors import UsageError
from qdx.verification.measure.components import compare_calls
from tests.support.artifacts import as_method
from tests.support.judging import CONTRACT, component_gates

BOUND_DB = CONTRACT.component.sqnr_db_min


def failed_gates(records, methods) -> set[str]:
    gates = component_gates(compare_calls(records, methods), BOUND_DB)
    return {gate.name for gate in gates if not gate.ok}


# What an artifact may do to the outputs of a method. -----------------------------------------------


def on_outputs(change):
    def sabotage(method):
        return lambda tensors: {n: change(t) for n, t in method(tensors).items()}

    return sabotage


def on_inputs(name, change):
    def sabotage(method):
        return lambda tensors: method({**tensors, name: change(tensors[name])})

    return sabotage


def one_element(value):
    def change(tensor):
        spoiled = tensor.clone()
        spoiled.view(-1)[-1] = value
        return spoiled

    return change


def previous_step(method):
    """Answers every call with what it should have answered before."""
    held = []

    def run(tensors):
        held.append(method(tensors))
        return held[max(0, len(held) - 2)]

    return run


def first_timestep(method):
    """A timestep that was baked into the graph."""
    held = []

    def run(tensors):
        held.append(tensors["timestep"])
        return method({**tensors, "timestep": held[0]})

    return run


def raising(error):
    def sabotage(_method):
        def run(_tensors):
            raise error

        return run

    return sabotage


OUTPUTS = {
    "zeros": on_outputs(torch.zeros_like),
    "all NaN": on_outputs(lambda t: torch.full_like(t, torch.nan)),
    "one NaN": on_outputs(one_element(torch.nan)),
    "one infinity": on_outputs(one_element(torch.inf)),
    "constant": on_outputs(lambda t: torch.full_like(t, float(t.mean()))),
    "ones": on_outputs(torch.ones_like),
    "scaled by 1.01": on_outputs(lambda t: t * 1.01),
    "sign lost": on_outputs(torch.abs),
    "negated": on_outputs(torch.neg),
    "shifted by one element": on_outputs(lambda t: t.roll(1, -1)),
    "latent transposed": on_outputs(lambda t: t.transpose(-1, -2).contiguous()),
    "channels reversed": on_outputs(lambda t: t.flip(1)),
    "batch entries swapped": on_outputs(lambda t: t.flip(0)),
    "first entry for the whole batch": on_outputs(lambda t: t[:1].expand_as(t)),
    "range saturated": on_outputs(lambda t: t.clamp(max=0.5 * float(t.max()))),
    "rounded to 6 bits": on_outputs(
        lambda t: (t * (31 / t.abs().max())).round() / (31 / t.abs().max())
    ),
    "cast to integers": on_outputs(lambda t: t.long()),
    "would broadcast": on_outputs(lambda t: t.mean(1, keepdim=True)),
    "batch dropped": on_outputs(lambda t: t[:1]),
    "noise at 45 dB": on_outputs(
        lambda t: t + 10 ** (-45 / 20) * t.square().mean().sqrt() * torch.randn(t.shape)
    ),
    "previous step": previous_step,
    "first timestep": first_timestep,
    "timestep off by ten": on_inputs("timestep", lambda t: t + 10),
    "timestep zero": on_inputs("timestep", torch.zeros_like),
    "prompt ignored": on_inputs("encoder_hidden_states", torch.zeros_like),
    "prompts swapped": on_inputs("encoder_hidden_states", lambda t: t.flip(0)),
    "prompt cut short": on_inputs("encoder_hidden_states", lambda t: t[:, :10]),
    "sample unscaled": on_inputs("sample", lambda t: t * 1.05),
    "runtime raises": raising(RuntimeError("no kernel image")),
    "memory runs out": raising(MemoryError()),
    "output missing": lambda _method: lambda _tensors: {},
    "output misnamed": lambda method: lambda tensors: {"out": method(tensors)["sample"]},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_wrong_denoiser_is_detected(sd, name):
    methods = {**sd.methods, "unet.forward": OUTPUTS[name](sd.methods["unet.forward"])}

    assert failed_gates(sd.records, methods) == {"unet.sqnr_db"}


# What a conversion may do to weights. -----------------------------------------------------------------


def modules_of(module, *kinds):
    return [part for part in module.modules() if isinstance(part, kinds)]


def first_square(module):
    return next(
        part.weight
        for part in modules_of(module, torch.nn.Linear)
        if part.weight.shape[0] == part.weight.shape[1]
    )


def transpose(module):
    weight = first_square(module)
    weight.copy_(weight.t().clone())


def drop_bias(module):
    next(part for part in modules_of(module, torch.nn.Conv2d) if part.bias is not None).bias.zero_()


def drop_norm(module):
    norm = modules_of(module, torch.nn.GroupNorm, torch.nn.LayerNorm)[0]
    norm.weight.fill_(1.0)
    norm.bias.zero_()


def wrong_epsilon(module):
    for part in modules_of(module, torch.nn.GroupNorm, torch.nn.LayerNorm):
        part.eps = 0.1


def integers(bits, axis):
    """Symmetric integers with one scale for each slice along an axis; None is one for the tensor."""

    def change(module):
        top = 2 ** (bits - 1) - 1
        for part in modules_of(module, torch.nn.Linear, torch.nn.Conv2d):
            weight = part.weight
            others = None if axis is None else tuple(d for d in range(weight.dim()) if d != axis)
            scale = weight.abs().amax(dim=others, keepdim=axis is not None) / top
            weight.copy_((weight / scale.clamp(min=1e-12)).round().clamp(-top, top) * scale)

    return change


def scales_swapped(module):
    """Integers of eight bits whose scales belong to the neighbouring channel."""
    part = modules_of(module, torch.nn.Conv2d)[0]
    scale = part.weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    part.weight.copy_((part.weight / scale).round() * scale.roll(1, 0))


def zero_point_lost(module):
    """Asymmetric integers of eight bits, read back without their zero point."""
    part = modules_of(module, torch.nn.Conv2d)[0]
    low, high = part.weight.min(), part.weight.max()
    part.weight.copy_((part.weight - low).div((high - low) / 255).round() * ((high - low) / 255))


def nibbles_swapped(module):
    """Neighbouring weights in each other's place, as in a packed byte read the wrong way round."""
    weight = first_square(module)
    weight.copy_(weight.unflatten(1, (-1, 2)).flip(-1).flatten(1))


def saturate(module):
    for part in modules_of(module, torch.nn.Linear, torch.nn.Conv2d):
        part.weight.clamp_(max=0.5 * float(part.weight.max()))


def one_layer_zero(module):
    modules_of(module, torch.nn.Linear, torch.nn.Conv2d)[-1].weight.zero_()


def kernels_flipped(module):
    """Convolution where the runtime means correlation."""
    for part in modules_of(module, torch.nn.Conv2d):
        part.weight.copy_(part.weight.flip(-1, -2))


def one_weight_nan(module):
    modules_of(module, torch.nn.Conv2d)[0].weight.view(-1)[0] = torch.nan


WEIGHTS = {
    "weight transposed": transpose,
    "bias dropped": drop_bias,
    "norm not applied": drop_norm,
    "epsilon of the norms": wrong_epsilon,
    "four bits, per channel": integers(4, 0),
    "eight bits, per tensor": integers(8, None),
    "six bits, along the wrong axis": integers(6, 1),
    "scales of the neighbour": scales_swapped,
    "zero point lost": zero_point_lost,
    "nibbles swapped": nibbles_swapped,
    "weights saturated": saturate,
    "one layer zero": one_layer_zero,
    "kernels flipped": kernels_flipped,
    "one weight NaN": one_weight_nan,
}


def with_weights(reference, where, change):
    component, _, method = where.partition(".")
    module = copy.deepcopy(reference.modules[component])
    with torch.no_grad():
        # The layers of an autoencoder's encoder take no part in decoding.
        change(module.decoder if method == "decode" else module)
    return {
        **reference.methods,
        where: as_method(module, method, reference.methods[where].arguments),
    }


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("where", ["unet.forward", "vae.decode"])
def test_wrong_weights_are_detected(sd, where, name):
    methods = with_weights(sd, where, WEIGHTS[name])

    assert failed_gates(sd.records, methods) == {f"{where.split('.')[0]}.sqnr_db"}


@pytest.mark.parametrize(
    "name", ["weight transposed", "norm not applied", "four bits, per channel"]
)
def test_a_wrong_text_encoder_is_detected(sd, name):
    methods = with_weights(sd, "text_encoder.forward", WEIGHTS[name])

    assert failed_gates(sd.records, methods) == {"text_encoder.sqnr_db"}


# What may be missing altogether. -----------------------------------------------------------------------


def test_two_methods_in_each_others_place_are_detected(sd):
    """Two denoisers of one shape, swapped, as two text encoders may be."""
    other = with_weights(sd, "unet.forward", integers(4, 0))["unet.forward"]
    records = {**sd.records, "unet_2.forward": sd.records["unet.forward"]}
    methods = {**sd.methods, "unet_2.forward": sd.methods["unet.forward"], "unet.forward": other}

    assert failed_gates(records, methods) == {"unet.sqnr_db"}


def test_a_runner_that_is_skipped_is_detected(sd):
    methods = {where: method for where, method in sd.methods.items() if where != "vae.decode"}

    assert failed_gates(sd.records, methods) == {"vae.sqnr_db"}


def test_a_method_that_was_never_called_is_detected(sd):
    methods = {**sd.methods, "vae.encode": sd.methods["vae.decode"]}

    assert failed_gates(sd.records, methods) == {"vae.sqnr_db"}


def test_empty_records_fail_every_component(sd):
    assert failed_gates({}, sd.methods) == {"text_encoder.sqnr_db", "unet.sqnr_db", "vae.sqnr_db"}


def test_an_artifact_without_methods_fails_every_component(sd):
    assert failed_gates(sd.records, {}) == {"text_encoder.sqnr_db", "unet.sqnr_db", "vae.sqnr_db"}


def test_nothing_against_nothing_fails():
    assert failed_gates({}, {}) == {"components.sqnr_db"}


def test_a_reference_that_is_not_finite_proves_nothing(sd):
    records = copy.deepcopy(dict(sd.records))
    records["vae.decode"].calls[0].outputs["sample"].view(-1)[0] = torch.nan

    assert failed_gates(records, sd.methods) == {"vae.sqnr_db"}


def test_a_refusal_of_the_target_is_raised(sd):
    refusal = UsageError("`unet.forward`: the artifact takes other sizes")
    methods = {**sd.methods, "unet.forward": raising(refusal)(None)}

    with pytest.raises(UsageError, match="other sizes"):
        compare_calls(sd.records, methods)


def test_the_fault_is_told_in_words(sd):
    changes = {"all NaN": "are not finite", "batch dropped": "has shape", "runtime raises": "no kernel image",
               "output missing": "`sample` is missing"}  # fmt: skip
    for name, words in changes.items():
        methods = {**sd.methods, "unet.forward": OUTPUTS[name](sd.methods["unet.forward"])}
        gates = component_gates(compare_calls(sd.records, methods), BOUND_DB)

        assert words in next(gate.note for gate in gates if not gate.ok)


# What must pass. -----------------------------------------------------------------------------------------


def rounded(dtype):
    def change(module):
        for parameter in module.parameters():
            parameter.copy_(parameter.to(dtype))

    return change


def into_the_input(method):
    """Writes into the tensors it is given, which are its own."""

    def run(tensors):
        result = method({n: t.clone() for n, t in tensors.items()})
        for tensor in tensors.values():
            tensor.zero_()
        return result

    return run


CORRECT = {
    "exact": lambda method: method,
    "float64": on_outputs(torch.Tensor.double),
    "strided": on_outputs(lambda t: t.transpose(0, 1).contiguous().transpose(0, 1)),
    "one output more": lambda method: lambda tensors: {**method(tensors), "more": torch.ones(1)},
    "other order": lambda method: lambda tensors: dict(reversed(method(tensors).items())),
    "noise at 60 dB": on_outputs(
        lambda t: t + 1e-3 * t.square().mean().sqrt() * torch.randn(t.shape)
    ),
    "outputs in float16": on_outputs(torch.Tensor.half),
    "inputs in float64 and back": on_inputs("sample", lambda t: t.double().float()),
    "timestep with a batch": on_inputs("timestep", lambda t: t.reshape(1).expand(2)),
    "writes into its inputs": into_the_input,
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_denoiser_passes(sd, name):
    methods = {**sd.methods, "unet.forward": CORRECT[name](sd.methods["unet.forward"])}

    assert failed_gates(sd.records, methods) == set()


@pytest.mark.parametrize("where", ["text_encoder.forward", "unet.forward", "vae.decode"])
def test_weights_rounded_to_float16_pass(sd, where):
    assert failed_gates(sd.records, with_weights(sd, where, rounded(torch.float16))) == set()


@pytest.mark.parametrize("where", ["unet.forward", "vae.decode"])
def test_weights_rounded_to_bfloat16_do_not_pass_for_float16(sd, where):
    assert failed_gates(sd.records, with_weights(sd, where, rounded(torch.bfloat16))) != set()
