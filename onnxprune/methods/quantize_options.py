"""What can be asked of a quantization, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from onnxprune.errors import UsageError
from onnxprune.hardware.target import target_named, target_names
from onnxprune.methods.layer_options import LayerOptions
from onnxprune.methods.quantization.modes.table import MODES, belongs, mode_named
from onnxprune.option import documented, option

INTEGERS = ("u8", "s8")

BELONGS = belongs(MODES)
"""Options that only some modes read."""


@documented
@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(LayerOptions):
    """Options of `quantize`.

    mode: static where there are data and layers that it helps. measure: a clock decides, so two runs can differ; not
    where CI or ONNXPRUNE_NO_MEASURE is set. guard: 98 % of the top classes, 22 dB of other outputs, on one sample in
    four, without gates. rounding "gptq": the error of a weight is made up for by those after it, as the data ask for;
    in static mode only where rounding to nearest does not pass guard or gate, with 64 samples or more and up to four
    million weights. equalize: where what stands between two layers keeps scales. Patterns are globs over node names.
    """

    mode: str | None = option(
        None,
        "Kind of quantization [default: static with --data, dynamic without or for recurrent networks].",
        choices=tuple(MODES),
    )
    bits: int | None = option(None, "Bits of the weights [default: 8, weight-only: 4].", choices=(4, 8))
    calibration: str = option(
        "minmax",
        "How ranges follow from the data, static mode [default: minmax].",
        choices=("minmax", "entropy", "percentile"),
    )
    percentile: float = option(99.99, "Values inside a range, in percent [default: 99.99].", metavar="P")
    activation_type: str | None = option(
        None, "Integers of activations [default: u8 on x86, else s8].", choices=INTEGERS
    )
    weight_type: str | None = option(None, "Integers of weights [default: s8].", choices=INTEGERS)
    per_channel: bool = option(
        True, "A scale for each output channel [default: per channel].", flag="--per-channel/--per-tensor"
    )
    symmetric: bool | None = option(
        None, "Ranges of activations [default: symmetric for s8].", flag="--symmetric/--asymmetric"
    )
    block_size: int = option(32, "Weights that share a scale, weight-only [default: 32].", metavar="N")
    rounding: str | None = option(
        None,
        "Of weights, static and weight-only [default: gptq; static: where nearest is not enough].",
        choices=("nearest", "gptq"),
    )
    keep_io_types: bool = option(
        True,
        "Inputs and outputs stay float32 in fp16 [default: keep].",
        flag="--keep-io-types/--convert-io-types",
    )
    op_block_list: tuple[str, ...] = option((), "Operators that stay float: Softmax,Add.", metavar="OPS", spelt="words")
    format: str = option(
        "qdq",
        "qoperator: onnxruntime's integer operators, a smaller file, static mode [default: qdq].",
        choices=("qdq", "qoperator"),
    )
    smooth: bool = option(False, "Move outliers of activations into weights behind norms, with --data.")
    equalize: bool = option(False, "Make channels between layers equally wide first, static mode.")
    correct_bias: bool = option(False, "Take the mean error of each layer out of its bias, static mode.")
    pass_through: bool = option(False, "Write a model that is quantized already as it is.")
    guard: bool = option(True, "Layers stay float until held-out samples agree, static mode [default: do].")
    measure: bool | None = option(
        None,
        "Parts that are slower in 8 bits here stay float, static mode [default: do, unless CI is set].",
    )
    target: str | None = option(None, "What the result will run on.", metavar="NAME", listed=target_names)
    stats: Path | None = option(
        None,
        "Statistics that onnxprune stats collected: weights are rounded to them, weight-only, instead of --data.",
        metavar="FILE",
        untold=True,
    )
    skip: tuple[str, ...] = option((), "Keep nodes float (repeatable).", metavar="PATTERN")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._suit_target()
        self._check_mode()
        self._check_bits()
        if self.stats is not None and self.mode != "weight-only":
            raise UsageError("stats is for --mode weight-only, whose weights are rounded to them; leave it out.")
        if self.block_size < 16 or self.block_size & (self.block_size - 1):
            raise UsageError(f"block-size {self.block_size}: onnxruntime takes powers of two from 16.")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile {self.percentile:g}: give a share in percent, above 50 and up to 100.")

    def _suit_target(self) -> None:
        """Take what nobody asked for from the target; types that it does not compute in are refused."""
        if self.target is None:
            return
        target = target_named(self.target)
        if self.mode is not None and not target.computes_in(mode_named(self.mode).precision):
            able = " and ".join(target.multiple)
            raise UsageError(f"target '{target.name}' computes in {able}; mode {self.mode} does not fit.")
        fitting = self.mode in (None, target.quantize.get("mode"))
        for item in fields(self):
            if fitting and item.name in target.quantize and getattr(self, item.name) == item.default:
                object.__setattr__(self, item.name, target.quantize[item.name])
        if self.measure is None and self.mode == "static" and not target.is_cpu:
            object.__setattr__(self, "measure", False)  # what is fast here says nothing of it

    @property
    def precision(self) -> str | None:
        """Numbers that the result computes in; None: those of before."""
        return mode_named(self.mode or "static").precision

    def _check_bits(self) -> None:
        """Refuse bits that this mode has not."""
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
