"""The modes of `quantize` on one screen: what each one reads, needs and is called. Its work is in the file of its name.

A new mode is a line here and a file with a class derived from `work.Work`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from onnxprune.errors import UsageError


@dataclass(frozen=True)
class Mode:
    """One way to have fewer bits.

    home: file beside this one and class in it that does the work.
    options: options of quantize that not every mode reads, and this one does.
    bits: of the weights; the first number is the default.
    word: what the default name of the output gets, before the bits.
    opset: least version of ONNX's operators that the result needs.
    needs_data: it takes ranges from inputs, and stops without.
    smaller: it exists for the size of the file, and stops where that does not fall.
    precision: numbers that the result computes in; None: those of before.
    without_layers: it changes more than layers, so a model without any can be asked for.
    back: it undoes what others did, and takes models that are quantized already.
    """

    name: str
    home: tuple[str, str]
    options: tuple[str, ...] = ()
    bits: tuple[int, ...] = (8,)
    word: str = "int"
    opset: int = 0
    needs_data: bool = False
    smaller: bool = True
    precision: str | None = None
    without_layers: bool = False
    back: bool = False


def table(*modes: Mode) -> Mapping[str, Mode]:
    """Return modes by name.

    Raises:
        ValueError: two have the same name.
    """
    found: dict[str, Mode] = {}
    for mode in modes:
        if mode.name in found:
            raise ValueError(f"the mode {mode.name} is there twice")
        found[mode.name] = mode
    return MappingProxyType(found)


_INTEGERS = ("per_channel", "activation_type", "weight_type", "smooth")
_STATIC = ("calibration", "percentile", "format", "equalize", "correct_bias", "symmetric", "guard", "measure")

MODES = table(
    Mode("dynamic", ("dynamic", "Dynamic"), _INTEGERS, opset=11, precision="int8"),
    Mode(
        "static",
        ("static", "Static"),
        (*_STATIC, *_INTEGERS, "rounding"),
        opset=13,
        needs_data=True,
        smaller=False,
        precision="int8",
    ),
    Mode("weight-only", ("blocks", "WeightOnly"), ("rounding", "block_size"), bits=(4, 8)),
    Mode(
        "fp16",
        ("float16", "Float16"),
        ("keep_io_types",),
        bits=(16,),
        word="fp",
        precision="float16",
        without_layers=True,
    ),
    Mode(
        "bf16",
        ("bfloat16", "BFloat16"),
        bits=(16,),
        word="bf",
        opset=13,
        precision="float16",
        without_layers=True,
    ),
    Mode("float", ("unpacked", "Unpacked"), bits=(32,), word="float", smaller=False, back=True),
)


def belongs(modes: Mapping[str, Mode]) -> dict[str, tuple[str, ...]]:
    """Return the options that only some modes read, each with these."""
    names = dict.fromkeys(name for mode in modes.values() for name in mode.options)
    return {name: tuple(mode.name for mode in modes.values() if name in mode.options) for name in names}


def mode_named(name: str) -> Mode:
    """Return a mode.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in MODES:
        raise UsageError(f"mode '{name}': choose one of {', '.join(MODES)}.")
    return MODES[name]
