"""What can be asked of a quantization, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from onnxprune.errors import UsageError
from onnxprune.methods.layer_options import LayerOptions, choose, words
from onnxprune.methods.quantization.modes.table import MODES, belongs, mode_named

CALIBRATIONS = ("minmax", "entropy", "percentile")
INTEGERS = ("u8", "s8")
ROUNDINGS = ("nearest", "gptq")
FORMATS = ("qdq", "qoperator")

BELONGS = belongs(MODES)
"""Options that only some modes read."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(LayerOptions):
    """Options of `quantize`.

    mode: one of MODES; None takes static where there are data and layers that it helps, else dynamic.
    bits: of the weights: 8, or 4 in weight-only mode; None is 8, and 4 in weight-only mode.
    calibration: how ranges come from the values that were seen (static mode).
    percentile: share of the values, in percent, that a range holds (calibration by percentile).
    activation_type, weight_type: "u8" or "s8"; None is right for this machine.
    per_channel: a scale for each output channel of a weight (dynamic and static mode).
    symmetric: ranges of activations are symmetric around zero; None where activations are s8.
    block_size: weights that share a scale (weight-only mode).
    rounding: "nearest", or "gptq": the error of a weight is made up for by those after it, as the data ask for
        (weight-only and static mode); None is gptq where there are data, in static mode only where rounding to
        nearest does not pass guard or gate, with 64 samples or more and up to four million weights.
    keep_io_types: inputs and outputs stay float32 (fp16 mode).
    op_block_list: operators that stay float.
    skip, only: globs over node names: nodes that stay float, nodes that alone are quantized.
    format: "qdq" writes QuantizeLinear and DequantizeLinear around the layers, which every runtime reads; "qoperator"
        writes onnxruntime's integer operators themselves: the same arithmetic in a smaller file (static mode).
    smooth: move outliers of activations into the weights behind normalisations (static and dynamic mode, with data).
    equalize: make the channels between two layers equally wide first, where what stands between them keeps scales
        (static mode).
    correct_bias: take the mean error that rounding adds out of the biases (static mode).
    pass_through: a model that is quantized already is handed on as it is, instead of being refused.
    measure: leave parts of the network float that are no faster in 8 bits on this machine, and stop where the whole is
        not; a clock decides, so two runs can differ. None does it unless CI or ONNXPRUNE_NO_MEASURE is set (static
        mode with data).
    guard: one sample in four is held out, and layers stay float until the model gives the same on these: 98 % of the
        top classes, 22 dB of other outputs (static mode with data and without gates).
    """

    mode: str | None = None
    bits: int | None = None
    calibration: str = "minmax"
    percentile: float = 99.99
    activation_type: str | None = None
    weight_type: str | None = None
    per_channel: bool = True
    symmetric: bool | None = None
    block_size: int = 32
    rounding: str | None = None
    keep_io_types: bool = True
    op_block_list: tuple[str, ...] = ()
    format: str = "qdq"
    smooth: bool = False
    equalize: bool = False
    correct_bias: bool = False
    pass_through: bool = False
    guard: bool = True
    measure: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "op_block_list", words(self.op_block_list))
        if self.mode is not None:
            mode_named(self.mode)
        choose("calibration", self.calibration, CALIBRATIONS)
        choose("format", self.format, FORMATS)
        self._check_mode()
        for name in ("activation_type", "weight_type"):
            if getattr(self, name) is not None:
                choose(name.replace("_", "-"), getattr(self, name), INTEGERS)
        if self.rounding is not None:
            choose("rounding", self.rounding, ROUNDINGS)
        self._check_bits()
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise UsageError(f"block-size {self.block_size}: onnxruntime takes powers of two from 16.")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile {self.percentile:g}: give a share in percent, above 50 and up to 100.")

    def _check_bits(self) -> None:
        """Refuse bits that no mode has, or not this one."""
        if self.bits not in (None, 4, 8):
            raise UsageError(f"bits {self.bits!r}: choose 4 or 8.")
        known = (8,) if self.mode is None else MODES[self.mode].bits
        if self.bits is not None and self.bits not in known:
            able = " and ".join(mode.name for mode in MODES.values() if self.bits in mode.bits)
            own = f"mode {self.mode} has {known[0]} bits" if self.mode else "the other modes have more"
            raise UsageError(f"bits {self.bits} is for --mode {able}; {own}, leave it out.")

    def _check_mode(self) -> None:
        """Refuse what the mode would not look at."""
        for item in fields(self):
            modes = BELONGS.get(item.name, MODES)
            if self.mode is not None and self.mode not in modes and getattr(self, item.name) != item.default:
                value = getattr(self, item.name)
                shown = item.name if isinstance(value, bool) else f"{item.name} {value}"
                raise UsageError(
                    f"{shown} is for --mode {' and '.join(modes)}; {self.mode} mode has no use for it, leave it out."
                )
        if self.percentile != 99.99 and self.calibration != "percentile":
            raise UsageError(f"percentile {self.percentile:g} is for calibration percentile, not {self.calibration}.")


def weight_bits(options: QuantizeOptions, mode: str) -> int:
    """Return the bits of a stored weight."""
    known = mode_named(mode).bits
    return options.bits if options.bits in known else known[0]


def suffix(options: QuantizeOptions, mode: str) -> str:
    """Return what the default name of the output gets: int8, int4, fp16, bf16."""
    return f"{mode_named(mode).word}{weight_bits(options, mode)}"
