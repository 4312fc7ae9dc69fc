"""The least-squares residual whose errors count as much as they change the outputs of the network.

A number is added to every output channel of every layer, one a sample, and onnx-ad gives the derivative by it. The loss
is a random projection of the outputs, as for other derivatives: its squared derivative is the second derivative of the
distance to the original, so an error of a layer costs its square times that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from onnxprune.compensate.distil import before_last
from onnxprune.compensate.gradient import differentiable
from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.session import Session, open_session
from onnxprune.graph.trace import Shape, trace
from onnxprune.operators.operator import operator_of
from onnxprune.score.activity import Activity, run_tensors
from onnxprune.score.criterion import criterion
from onnxprune.score.gradients import LOSS, derivative_of_projection
from onnxprune.score.group_slices import Slices
from onnxprune.score.readings import Reading
from onnxprune.score.residual import residuals
from onnxprune.statistics.batch import activation_elements
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, FloatArray

SAMPLES, BATCH, PROJECTIONS = 64, 16, 2
BACKWARD = 3
"""Activations of a run of the derivatives over those of the model alone."""


@criterion("curvature", comparable=True, needs_data=True, needs_products=True)
def curvature(slices: Slices) -> FloatArray:
    """As lstsq, in units of the outputs: s[c] = sum over outputs o of h[o] W~[o, c]^2 / [S^-1][c, c].

    h[o] = mean over samples and r of (dL / db[o])^2 for a bias b[o] of the output o of a reader, L = sum of r y / sd(y)
    over the outputs y of the network, r = 1 or -1 by chance: the diagonal of the Gauss-Newton matrix of the distance to
    the original. An error that the rest of the network hides costs little, and errors of all layers are of one unit. A
    reader inside a recurrence, which no bias can be added to, counts as readers do on the mean.
    Source: lstsq; Martens and Grosse 2015, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
    section 3, the diagonal of the second factor; of convolutions with the sum over positions, as in Eschenhagen et al.
    2023, Kronecker-Factored Approximate Curvature for Modern Neural Network Architectures, section 3.2 (reduce).
    """
    return residuals(slices, counted)


def counted(activity: Activity, reading: Reading) -> FloatArray | None:
    """Return (elements,): what the square of an error of each output of a weight costs at the outputs."""
    if activity.curvature is None:
        activity.curvature = Curvature.of(activity)
    known: Curvature = activity.curvature
    return known.counts(activity, reading)


@dataclass(frozen=True, eq=False)
class Curvature:
    """Second derivatives of the distance by the outputs of layers.

    slopes: stored weight and its axis -> (outputs,) mean squared derivative, all its readers together.
    readings: one of each of these.
    """

    slopes: Mapping[tuple[str, int], FloatArray]
    readings: Sequence[Reading]
    _usual: list[float] = field(default_factory=list)

    @staticmethod
    def of(activity: Activity, samples: int = SAMPLES) -> Curvature:
        """Return what runs of the derivatives tell on so many samples.

        Raises:
            UsageError: an operator has no derivative, or onnx-ad is missing.
        """
        biased = _Biased.open(activity, samples)
        squares = biased.run()
        slopes: dict[tuple[str, int], FloatArray] = {}
        for reading in biased.readings:
            found = squares[reading.node.outputs[0]]
            slopes[reading.stored] = slopes.get(reading.stored, 0.0) + found
        return Curvature(slopes, list({reading.stored: reading for reading in biased.readings}.values()))

    def usual(self, activity: Activity) -> float:
        """Return what an error of all that a reader gives costs, on the mean of the readers."""
        if not self._usual:
            powers = [_power(activity, reading, self.slopes[reading.stored]) for reading in self.readings]
            self._usual.append(float(np.mean(powers)))
        return self._usual[0]

    def counts(self, activity: Activity, reading: Reading) -> FloatArray:
        """Return (elements,) for the columns of a weight's matrix."""
        if reading.stored in self.slopes:
            return reading.spread(activity.view, self.slopes[reading.stored])
        weight = reading.matrix(activity.view)
        own = float(activity.of(reading).variance @ np.square(weight).sum(axis=1))
        return np.full(weight.shape[1], self.usual(activity) / max(own, 1e-30))


def _power(activity: Activity, reading: Reading, slopes: FloatArray) -> float:
    """Return what it would cost if all that a reader gives went, its inputs taken for independent."""
    weight = np.square(reading.matrix(activity.view)) @ reading.spread(activity.view, slopes)
    return float(activity.of(reading).variance @ weight)


@dataclass(frozen=True, eq=False)
class _Biased:
    """The derivatives of a projection by biases of layers.

    biases: output of a layer -> name, shape. outputs: name of an output -> its shape, and what signs are multiplied by.
    """

    session: Session
    readings: Sequence[Reading]
    biases: Mapping[str, tuple[str, Shape]]
    outputs: Mapping[str, tuple[Shape, float]]
    feeds: Sequence[Feed]
    channels: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def open(activity: Activity, samples: int) -> _Biased:
        """Return the graph of derivatives.

        Raises:
            UsageError: an operator has no derivative, or onnx-ad is missing.
        """
        model = activity.view.model
        graph = model.proto.graph
        batch = _batch(activity)
        feeds = [feed for feed, _ in zip(activity.data.batches(batch), range(max(1, samples // batch)), strict=False)]
        feeds = [f for f in feeds if all(f[n].shape == feeds[0][n].shape for n in f)]
        main = {name for node in graph.node for name in node.output}
        readings = [r for r in activity.all_readings if _adds_up(r) and r.node.outputs[0] in main]
        ends = list(dict.fromkeys(before_last(graph, value.name) for value in graph.output))
        values = run_tensors(activity, [*dict.fromkeys([*ends, *(r.node.outputs[0] for r in readings)])], batch)
        readings = [r for r in readings if values[r.node.outputs[0]].dtype == np.float32]
        floats = {name: values[name] for name in ends if values[name].dtype == np.float32}
        if not readings or not floats:
            raise UsageError("this score needs derivatives of single-precision outputs. Choose another --score.")
        try:
            proto = differentiable(model, feeds[0])
            biases: dict[str, tuple[str, Shape]] = {}
            for reading in readings:
                made = reading.node.outputs[0]
                if made not in biases:
                    biases[made] = _bias(proto, made, values[made].shape, reading.output_axis, len(biases))
            slopes = derivative_of_projection(
                proto, [name for name, _ in biases.values()], {name: value.shape for name, value in floats.items()}
            )
            # one thread: the same sums on any number of cores
            session = open_session(slopes, threads=1, provider=activity.provider)
        except ModelError as error:
            raise UsageError(f"this score needs derivatives: {error} Choose another --score.") from error
        count = len(next(iter(feeds[0].values())))
        sizes = {
            name: (value.shape, 1 / math.sqrt(max(float(value.var()) * value.size / count, 1e-30)))
            for name, value in floats.items()
        }
        axes = {r.node.outputs[0]: r.output_axis % values[r.node.outputs[0]].ndim for r in readings}
        return _Biased(session, readings, biases, sizes, feeds, axes)

    def run(self) -> dict[str, FloatArray]:
        """Return output of a layer -> (channels,) mean squared derivative by their biases."""
        generator = np.random.default_rng(0)
        zeros = {name: np.zeros(shape, np.float32) for name, shape in self.biases.values()}
        seed = {f"adj_{LOSS}": np.ones((1, 1), np.float32)}
        wanted = [f"adj_{name}" for name, _ in self.biases.values()]
        found = {made: np.zeros(shape[self.channels[made]]) for made, (_, shape) in self.biases.items()}
        for feed in self.feeds:
            for _ in range(PROJECTIONS):
                signs = {
                    f"{name}.projection": (scale * generator.choice([-1.0, 1.0], shape)).astype(np.float32)
                    for name, (shape, scale) in self.outputs.items()
                }
                slopes = self.session.values(wanted, feed | zeros | seed | signs)
                for (made, (_, shape)), slope in zip(self.biases.items(), slopes, strict=True):
                    found[made] += _squares(slope.reshape(shape), self.channels[made])
        runs = PROJECTIONS * len(self.feeds)
        return {made: value / runs for made, value in found.items()}


def _adds_up(reading: Reading) -> bool:
    """Tell whether a bias at the first output of a node is one of the product, as none inside a recurrence is."""
    operator = operator_of(reading.node)
    return reading.input >= 0 and operator is not None and not operator.gates


def _batch(activity: Activity) -> int:
    """Return how many samples a run has, within the memory."""
    view = activity.view
    one = {name: array.shape for name, array in next(iter(activity.data.batches(1))).items()}
    numbers = BACKWARD * activation_elements(view, trace(view, one).shapes)
    return int(np.clip(activity.allowed / (4 * max(numbers, 1)), 1, BATCH))


def _squares(slope: Array, axis: int) -> FloatArray:
    """Return (channels,): the mean square over the other axes; what is no number counts as nothing."""
    finite = np.nan_to_num(slope.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.square(np.moveaxis(finite, axis, -1).reshape(-1, slope.shape[axis])).mean(axis=0))


def _bias(proto: onnx.ModelProto, made: str, shape: Shape, axis: int, number: int) -> tuple[str, Shape]:
    """Add a number to each channel of what a layer gives, one for each entry of the first axis."""
    axis %= len(shape)
    sizes = tuple(size if place in (0, axis) else 1 for place, size in enumerate(shape))
    name, plain = f"onnxprune.bias{number}", f"onnxprune.unbiased{number}"
    proto.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes))
    place = next(place for place, node in enumerate(proto.graph.node) if made in node.output)
    outputs = proto.graph.node[place].output
    outputs[list(outputs).index(made)] = plain
    proto.graph.node.insert(place + 1, helper.make_node("Add", [plain, name], [made]))
    return name, sizes
