"""What only some modes read is refused in the others."""

import pytest

from onnxprune.errors import UsageError
from onnxprune.methods.options import PruneOptions
from onnxprune.methods.quantization.options import BELONGS, MODES, QuantizeOptions

OTHER = {
    "calibration": "entropy",
    "percentile": 99.0,
    "format": "qoperator",
    "equalize": True,
    "correct_bias": True,
    "symmetric": True,
    "guard": False,
    "measure": True,
    "per_channel": False,
    "activation_type": "u8",
    "weight_type": "s8",
    "smooth": True,
    "rounding": "nearest",
    "block_size": 64,
    "keep_io_types": False,
}


@pytest.mark.parametrize("option", sorted(BELONGS))
@pytest.mark.parametrize("mode", MODES)
def test_an_option_of_other_modes_is_refused(option: str, mode: str) -> None:
    more = {"calibration": "percentile"} if option == "percentile" else {}
    if mode in BELONGS[option]:
        assert getattr(QuantizeOptions(mode=mode, **{option: OTHER[option]}, **more), option) == OTHER[option]
        return
    with pytest.raises(UsageError, match=f"is for --mode {BELONGS[option][0]}.*leave it out"):
        QuantizeOptions(mode=mode, **{option: OTHER[option]}, **more)


def test_every_option_of_a_mode_is_tried() -> None:
    assert set(OTHER) == set(BELONGS)


def test_a_percentile_without_its_calibration_is_refused() -> None:
    with pytest.raises(UsageError, match="calibration percentile, not minmax"):
        QuantizeOptions(mode="static", percentile=99.0)


@pytest.mark.parametrize("compensate", ["none", "bias", "lstsq"])
def test_steps_without_gradient_steps_are_refused(compensate: str) -> None:
    with pytest.raises(UsageError, match=f"steps 5 are gradient steps, compensate {compensate} takes none"):
        PruneOptions(compensate=compensate, steps=5)
