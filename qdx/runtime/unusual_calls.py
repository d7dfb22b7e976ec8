"""Calls of an opened pipeline that its bundle was not calibrated for, and prompts that are cut, are told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.calibrate.timesteps import timestep_of
from qdx.exporter.capture.cut_prompts import Tokenizing, cut_words, tokenizing
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.cautions import caution
from qdx.exporter.errors import quoted
from qdx.runtime.wrapped_call import default_arguments, wrap_call

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from qdx.bundle.manifest import Manifest

__all__ = ["UnusualCalls", "tell_unusual_calls"]

_STEPS: Final = "num_inference_steps"
_SCHEDULES: Final = ("timesteps", "sigmas")
"""Arguments that are a schedule of the caller's own, one number a step."""
_ENOUGH_STEPS: Final = 10
"""So many steps see every tenth of a schedule; more of them see little that is new."""
_BEYOND_STEPS: Final = 1.5
"""How many steps of the calibration a timestep may lie beyond all that it saw."""


class UnusualCalls:
    """What calls of one opened pipeline were told.

    Args:
        calibration: The bundle's record of its calibration; None where nothing was calibrated.
    """

    def __init__(self, calibration: Mapping[str, Any] | None) -> None:
        self._steps = _whole((calibration or {}).get("steps"))
        timesteps = (calibration or {}).get("timesteps")
        self._timesteps = timesteps if isinstance(timesteps, Mapping) else {}
        self._told: set[str] = set()
        self._tokenizing: Tokenizing | None = None
        self._longer = False

    def begin(self, call: Mapping[str, Any], tokenizing: Tokenizing, *, longer: bool) -> None:
        """Takes the arguments of a call of the pipeline, before it runs.

        Args:
            call: The arguments, defaults among them.
            tokenizing: What its tokenizers are seen to do.
            longer: Whether it takes `max_sequence_length`.
        """
        self._tokenizing, self._longer = tokenizing, longer
        asked = _steps_of(call)
        seen = self._steps
        if asked is None or seen is None or seen >= min(asked, _ENOUGH_STEPS) or asked < 2 * seen:
            return
        self._tell(
            f"steps {asked}",
            f"this bundle was calibrated on {seen} step{'s'[: seen > 1]}, and {asked} are run: activations at timesteps "
            f"that calibration did not see can leave their ranges; run {seen}, or export again with "
            f"`{_STEPS}` {asked} in --call, or `calibration.steps` in the plan",
        )

    def observe(self, where: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes the inputs of a call of a component."""
        record = self._timesteps.get(where)
        if not isinstance(record, Mapping):
            return
        value = tensors.get(str(record.get("input")))
        if value is None:
            return
        self.tell_cuts()  # the prompts are read by now
        highest, lowest = _number(record.get("highest")), _number(record.get("lowest"))
        count = _whole(record.get("count"))
        if highest is None or lowest is None or count is None or count < 2:
            return
        step = (highest - lowest) / (count - 1)
        timestep = timestep_of(value)
        if lowest - _BEYOND_STEPS * step <= timestep <= highest + _BEYOND_STEPS * step:
            return
        self._tell(
            f"timesteps {where}",
            f"{quoted(where)} is run at timestep {timestep:g}, and calibration saw {highest:g} to {lowest:g}: activations "
            "there can leave their ranges; export again with a --call like this one",
        )

    def tell_cuts(self) -> None:
        """Warns of the prompts of this call that were cut, once."""
        tokenizing, self._tokenizing = self._tokenizing, None
        cuts = [] if tokenizing is None else tokenizing.cuts()
        if cuts:
            caution(cut_words(cuts, longer=self._longer))

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            caution(text)


def tell_unusual_calls(pipeline: DiffusionPipeline, manifest: Manifest) -> UnusualCalls:
    """Makes a pipeline tell of calls that its bundle was not calibrated for, and of prompts that are cut.

    Args:
        pipeline: Opened from the bundle.
        manifest: Of the bundle.

    Returns:
        What is to be told of the calls of its components.
    """
    unusual = UnusualCalls(manifest.calibration)
    longer = "max_sequence_length" in call_parameters(pipeline)
    defaults = default_arguments(pipeline)

    def told(called: Any, given: dict[str, Any], call: Callable[[], Any]) -> Any:
        with tokenizing(called) as seen:
            unusual.begin({**defaults, **given}, seen, longer=longer)
            answer = call()
            unusual.tell_cuts()
        return answer

    wrap_call(pipeline, told)
    return unusual


def _steps_of(call: Mapping[str, Any]) -> int | None:
    for name in _SCHEDULES:
        if isinstance(call.get(name), list | tuple):
            return len(call[name])
    return _whole(call.get(_STEPS))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
