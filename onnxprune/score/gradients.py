"""Criteria that need derivatives: what is read is multiplied by gates of ones, one a sample and channel.

onnx-ad writes the derivative as an ONNX graph. The loss is a random projection of the outputs,
L = sum over outputs of r * y: its squared derivative, averaged over r, is the second derivative of the distance to the
original, whose first one is zero. No labels are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.compensate.gradient import differentiable
from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.session import Session, open_session
from onnxprune.score.activity import Activity, run_tensors
from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices
from onnxprune.score.magnitude import l2
from onnxprune.score.readings import Reading
from onnxprune.types import Array, FloatArray

SAMPLES, BATCH, PROJECTIONS = 64, 16, 2
LOSS = "onnxprune.loss"


@criterion("fisher", comparable=True, needs_data=True)
def fisher(slices: Slices) -> FloatArray:
    """Second derivative of the distance to the original: s[c] = mean over samples and r of (dL / dg[c])^2.

    Source: Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning, equation 7.
    """
    return _reduced(slices, lambda slopes: np.square(slopes).mean(axis=0))


@criterion("taylor", needs_data=True)
def taylor(slices: Slices) -> FloatArray:
    """Size of the first-order change: s[c] = mean over samples and r of |dL / dg[c]|, dL/dg = sum of x[c] dL/dx[c].

    Source: Molchanov et al. 2017, Pruning Convolutional Neural Networks for Resource Efficient Inference, equation 8.
    """
    return _reduced(slices, lambda slopes: np.abs(slopes).mean(axis=0))


@criterion("gradient", needs_data=True)
def gradient(slices: Slices) -> FloatArray:
    """Sensitivity to the channel without its size: s[c] = mean |dL / dg[c]| / root mean square of x[c].

    Source: the gradient criterion of Mozer and Smolensky 1989, Skeletonization, per unit of activation.
    """
    return _reduced(slices, lambda slopes: np.abs(slopes).mean(axis=0), per_size=True)


def _reduced(slices: Slices, reduce: object, per_size: bool = False) -> FloatArray:
    activity = slices.activity
    found = activity.readings(slices.group) if activity else []
    if activity is None or not found:
        slices.notes.append("have no linear reader whose input could be seen, so l2 is used")
        return l2(slices)
    slopes = _slopes(activity)
    total: FloatArray | None = None
    size = np.zeros(slices.group.size)
    for reading, positions in found:
        if (reading.tensor, reading.axis) not in slopes:
            continue
        part = slopes[reading.tensor, reading.axis][:, positions].sum(axis=2)
        total = part if total is None else total + part
        statistics = activity.of(reading)
        size += np.sqrt(statistics.variance + statistics.mean**2)[positions].sum(axis=1)
    if total is None:
        slices.notes.append("have no reader with a derivative, so l2 is used")
        return l2(slices)
    scores: FloatArray = reduce(total)  # type: ignore[operator]  # both kinds take one array
    return scores / np.maximum(size, 1e-12) if per_size else scores


def _slopes(activity: Activity) -> dict[tuple[str, int], Array]:
    """Return (samples * projections, positions): dL / dg of every tensor that is read."""
    if activity.slopes is None:
        activity.slopes = _Gates.open(activity).run(activity)
    return activity.slopes


@dataclass(frozen=True, eq=False)
class _Gates:
    session: Session
    gates: dict[tuple[str, int], tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[int, ...]]
    feeds: list[dict[str, Array]]

    @staticmethod
    def open(activity: Activity) -> _Gates:
        """Return the graph of derivatives.

        Raises:
            UsageError: an operator has no derivative, or onnx-ad is missing.
        """
        model = activity.view.model
        feeds = [feed for feed, _ in zip(activity.data.batches(BATCH), range(SAMPLES // BATCH), strict=False)]
        feeds = [f for f in feeds if all(f[n].shape == feeds[0][n].shape for n in f)]
        names = [value.name for value in model.proto.graph.output]
        readings = {(r.tensor, r.axis): r for r in activity.all_readings if r.input >= 0}
        values = run_tensors(activity, [*names, *(tensor for tensor, _ in readings)], BATCH)
        floats = {name: values[name].shape for name in names if values[name].dtype == np.float32}
        try:
            proto = differentiable(model, feeds[0])
            gates = {
                key: gate(proto, reading, values[key[0]], number)
                for number, (key, reading) in enumerate(readings.items())
                if values[key[0]].dtype == np.float32
            }
            slopes = derivative_of_projection(proto, [name for name, _ in gates.values()], floats)
            return _Gates(open_session(slopes, threads=activity.threads or None), gates, floats, feeds)
        except ModelError as error:
            raise UsageError(f"this score needs derivatives: {error} Choose another --score.") from error

    def run(self, activity: Activity) -> dict[tuple[str, int], Array]:
        """Return the derivatives of all samples and projections."""
        generator = np.random.default_rng(0)
        ones = {name: np.ones(shape, np.float32) for name, shape in self.gates.values()}
        seed = {f"adj_{LOSS}": np.ones((1, 1), np.float32)}
        wanted = [f"adj_{name}" for name, _ in self.gates.values()]
        found: dict[tuple[str, int], list[Array]] = {key: [] for key in self.gates}
        for feed in self.feeds:
            for _ in range(PROJECTIONS):
                signs = {
                    f"{name}.projection": generator.choice([-1.0, 1.0], shape).astype(np.float32)
                    for name, shape in self.outputs.items()
                }
                slopes = self.session.values(wanted, feed | ones | seed | signs)
                for (key, (_, shape)), slope in zip(self.gates.items(), slopes, strict=True):
                    found[key].append(slope.reshape(shape[0], -1).astype(np.float64))
        return {key: np.concatenate(parts) for key, parts in found.items()}


def gate(proto: onnx.ModelProto, reading: Reading, value: Array, number: int) -> tuple[str, tuple[int, ...]]:
    """Multiply a tensor by a gate where this reader and its fellows read it."""
    axis = reading.axis % value.ndim
    shape = tuple(size if place in (0, axis) else 1 for place, size in enumerate(value.shape))
    name, gated = f"onnxprune.gate{number}", f"onnxprune.gated{number}"
    proto.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    weights = reading.node.op_type
    first = None
    for place, node in enumerate(proto.graph.node):
        if reading.tensor in node.input and node.op_type == weights:
            first = place if first is None else first
            for index, other in enumerate(node.input):
                if other == reading.tensor:
                    node.input[index] = gated
    proto.graph.node.insert(first or 0, helper.make_node("Mul", [reading.tensor, name], [gated]))
    return name, shape


def derivative_of_projection(
    proto: onnx.ModelProto, inputs: list[str], outputs: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """Return dL / dx as a graph, L = the sum over outputs of y * `<output>.projection`, an input of its shape.

    Args:
        proto: a graph of fixed sizes, which is changed.
        inputs: x, each of which has an output `adj_<input>`.

    Raises:
        ModelError: an operator has no derivative, or onnx-ad is missing.
    """
    graph, terms = proto.graph, []
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), "onnxprune.flat"))
    for number, (name, shape) in enumerate(outputs.items()):
        stem = f"onnxprune.term{number}"
        graph.input.append(helper.make_tensor_value_info(f"{name}.projection", onnx.TensorProto.FLOAT, shape))
        graph.node.extend(
            [
                helper.make_node("Mul", [name, f"{name}.projection"], [f"{stem}.product"]),
                helper.make_node("Reshape", [f"{stem}.product", "onnxprune.flat"], [f"{stem}.row"]),
                helper.make_node("ReduceSum", [f"{stem}.row"], [f"{stem}.sum"], keepdims=1),
            ]
        )
        terms.append(f"{stem}.sum")
    graph.node.append(helper.make_node("Sum", terms, [LOSS]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOSS, onnx.TensorProto.FLOAT, [1]))
    try:
        from onnx_ad import reverse
    except ImportError as error:
        raise ModelError("onnx-ad is missing: pip install onnx-ad.") from error
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
        return reverse(inferred, inputs=inputs, outputs=[LOSS], layout="onnx")  # type: ignore[no-any-return]  # untyped
    except Exception as error:  # onnx-ad refuses with errors of many kinds
        raise ModelError(f"{error}".splitlines()[0][:300]) from error
