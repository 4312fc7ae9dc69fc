"""What only some modes read is refused in the others."""

import pytest

from onnxprune.errors import UsageError
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.quantization.modes.table import Mode, belongs, mode_named, table
from onnxprune.methods.quantization.work import Work, work_of
from onnxprune.methods.quantize_options import BELONGS, MODES, QuantizeOptions, suffix

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


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_work_and_a_name_for_its_file(mode: str) -> None:
    assert issubclass(work_of(MODES[mode]), Work)
    names = {suffix(QuantizeOptions(mode=mode, bits=bits), mode) for bits in MODES[mode].bits if bits < 16}
    assert (names or {suffix(QuantizeOptions(mode=mode), mode)}) <= {"int8", "int4", "fp16", "bf16", "float32"}


def test_a_mode_that_is_not_registered_raises_and_none_is_registered_twice() -> None:
    for name in ("int4", "Static", ""):
        with pytest.raises(UsageError, match=f"mode '{name}': choose one of dynamic, static, weight-only"):
            mode_named(name)
        with pytest.raises(UsageError, match="choose one of"):
            QuantizeOptions(mode=name)
    with pytest.raises(ValueError, match="there twice"):
        table(Mode("a", ("dynamic", "Dynamic")), Mode("a", ("static", "Static")))


def test_a_new_mode_brings_its_options_by_its_line() -> None:
    modes = table(*MODES.values(), Mode("int2", ("dynamic", "Dynamic"), ("block_size", "smooth")))
    found = belongs(modes)
    assert found["block_size"] == ("weight-only", "int2") and found["smooth"] == ("dynamic", "static", "int2")
    assert found["guard"] == ("static",)


@pytest.mark.parametrize(("mode", "bits"), [("dynamic", 4), ("static", 4), ("fp16", 8), ("bf16", 8), (None, 4)])
def test_bits_that_a_mode_does_not_have_are_refused(mode: str | None, bits: int) -> None:
    with pytest.raises(UsageError, match=f"bits {bits} is for --mode .*weight-only"):
        QuantizeOptions(mode=mode, bits=bits)


def test_a_percentile_without_its_calibration_is_refused() -> None:
    with pytest.raises(UsageError, match="calibration percentile, not minmax"):
        QuantizeOptions(mode="static", percentile=99.0)


@pytest.mark.parametrize("compensate", ["none", "bias", "lstsq"])
def test_steps_without_gradient_steps_are_refused(compensate: str) -> None:
    with pytest.raises(UsageError, match=f"steps 5 are gradient steps, compensate {compensate} takes none"):
        PruneOptions(compensate=compensate, steps=5)
