"""One operator between two matrix products, drawn from the node models of onnx.backend.test.

The first product writes one axis of one float input of the operator, products behind it read every axis of its float
outputs, so that nothing but the operator itself decides which channels can go. All other inputs are constants.

python -m tests.backend.between [PART]    every model (whose name holds PART), prints what is wrong and a summary
"""

from __future__ import annotations

import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import DataError, GateError, NothingToPruneError, OnnxpruneError
from onnxprune.evidence.oracle import masked_model
from tests.oracle import Feeds, run, zeroed

TOLERANCE = 2e-3
"""Sums of few float32 numbers; what a rule gets wrong is off by tenths."""
READ = 3
"""Width to which every axis of an output is read."""


@dataclass(frozen=True, eq=False)
class Suite:
    """A node model of the backend suite with the inputs and outputs that come with it."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Place:
    """Which axis of which input of which model is written by a prunable layer."""

    model: str
    input: int
    axis: int


@cache
def suite() -> dict[str, Suite]:
    """Name -> node model, of those whose inputs and outputs are all arrays."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    found = {}
    for case in cases:
        inputs, outputs = (tuple(values) for values in case.data_sets[0])
        if case.model is not None and all(isinstance(v, np.ndarray | np.generic) for v in (*inputs, *outputs)):
            arrays = tuple(np.asarray(v) for v in inputs), tuple(np.asarray(v) for v in outputs)
            if len(inputs) == len(case.model.graph.input):
                found[case.name] = Suite(case.name, case.model, *arrays)
    return found


def places(part: str = "") -> list[Place]:
    """List every axis of at least two positions of every float32 input that some float32 output can show."""
    found = []
    for case in suite().values():
        if part not in case.name or not any(_is_readable(o) for o in case.outputs):
            continue
        for number, value in enumerate(case.inputs):
            if value.dtype == np.float32 and value.size:
                found += [Place(case.name, number, axis) for axis, size in enumerate(value.shape) if size > 1]
    return found


def sample(count: int) -> list[Place]:
    """Return places in an order that has nothing to do with their names, as many different operators as there are."""
    ordered = sorted(places(), key=lambda p: zlib.crc32(repr(p).encode()))
    seen: Counter[str] = Counter()
    ranked = []
    for place in ordered:
        operator = suite()[place.model].model.graph.node[-1].op_type
        ranked.append((seen[operator], place))
        seen[operator] += 1
    return [place for _, place in sorted(ranked, key=lambda pair: pair[0])][:count]


def _is_readable(array: np.ndarray) -> bool:
    return array.dtype == np.float32 and array.ndim > 0 and 0 < array.size < 1 << 16


def build(place: Place) -> tuple[onnx.ModelProto, Feeds]:
    """Return the model of one place and the inputs that it is run on."""
    case = suite()[place.model]
    rng = np.random.default_rng(zlib.crc32(repr(place).encode()))
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    model.ir_version = min(max(model.ir_version, 4), 10)
    given = case.inputs[place.input]
    names = [value.name for value in graph.input]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("U", TensorProto.FLOAT, given.shape))
    for number, (name, value) in enumerate(zip(names, case.inputs, strict=True)):
        if number != place.input:
            graph.initializer.append(numpy_helper.from_array(value, name))
    size = given.shape[place.axis]
    weight = np.eye(size) + 0.05 * rng.normal(size=(size, size))
    written = _product("U", names[place.input], weight, place.axis, given.ndim, "in")
    read: list[onnx.NodeProto] = []
    tensors = [written[1]]
    kept = [(o.name, array) for o, array in zip(graph.output, case.outputs, strict=True) if _is_readable(array)]
    renamed = {name: f"{name}_raw" for name, _ in kept}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del graph.output[:], graph.value_info[:]
    for name, array in kept:
        current = renamed[name]
        for axis in range(array.ndim):
            target = name if axis == array.ndim - 1 else f"{name}_read{axis}"
            matrix = rng.normal(size=(array.shape[axis], READ))
            nodes, tensor = _product(current, target, matrix, axis, array.ndim, f"{name}_{axis}")
            read += nodes
            tensors.append(tensor)
            current = target
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [READ] * array.ndim))
    nodes = [*written[0], *graph.node, *read]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    if not any(opset.domain in ("", "ai.onnx") for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 17))
    return model, {"U": given}


def _product(
    source: str, target: str, weight: np.ndarray, axis: int, rank: int, label: str
) -> tuple[list[onnx.NodeProto], TensorProto]:
    """Contract one axis with a matrix: to the last place, product, back."""
    forth = [a for a in range(rank) if a != axis] + [axis]
    back = [int(a) for a in np.argsort(forth)]
    nodes = [
        helper.make_node("Transpose", [source], [f"{label}_t"], name=f"{label}_t", perm=forth),
        helper.make_node("MatMul", [f"{label}_t", f"{label}_w"], [f"{label}_m"], name=label),
        helper.make_node("Transpose", [f"{label}_m"], [target], name=f"{label}_b", perm=back),
    ]
    return nodes, numpy_helper.from_array(weight.astype(np.float32), f"{label}_w")


def verdict(place: Place) -> str:
    """Return "refused" (by onnxruntime), "stays", "right", "no number" or what is wrong, after "wrong: "."""
    model, feeds = build(place)
    try:
        before = run(model, feeds)
    except Exception:  # operators, types and opsets that onnxruntime has no kernel for
        return "refused"
    options = {"ratio": 0.5, "align": 1, "compensate": "none"}
    try:
        try:
            result = onnxprune.prune(model, **options)
        except GateError:  # numbers became infinite; whether they do with the channels zeroed too is looked at below
            result = onnxprune.prune(model, run=onnxprune.Run(verify=False), **options)
    except NothingToPruneError:
        return "stays"
    except DataError:  # it runs on the inputs of the suite alone, so nothing was written
        return "refused"
    except OnnxpruneError as error:
        return f"wrong: {type(error).__name__}: {error}"
    except Exception as error:
        return f"wrong: foreign {type(error).__name__}: {error}"
    try:
        after = run(result.model.proto, feeds)
    except Exception as error:
        return f"wrong: the result does not run: {' '.join(str(error).split())[-160:]}"
    masks = [masked_model(result.channels, result.keep).proto, zeroed(model, result.plan.removed)]
    if not any(np.isfinite(value).all() for value in before):
        return "no number"
    found = _compare([run(m, feeds) for m in masks], after, all(group.exact for group in result.channels.groups))
    if found.startswith("wrong"):
        again = run(model, feeds)
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, again, strict=True)):
            return "no number"  # it draws random numbers
    return found


def _compare(references: Sequence[list[np.ndarray]], after: list[np.ndarray], exact: bool) -> str:
    """The package's own oracle always, the independent one where the groups are exact."""
    seen = False
    for reference in references if exact else references[:1]:
        for expected, found in zip(reference, after, strict=True):
            if expected.shape != found.shape:
                return f"wrong: shape {found.shape} instead of {expected.shape}"
            if not np.isfinite(expected).all():
                continue  # a zeroed channel is 0 / 0 or log(0) here; the pruned model need not be
            seen = True
            error = np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-6)
            if not error <= TOLERANCE:
                return f"wrong: differs by {error:.1e}"
    return "right" if seen else "no number"


def verdicts(chosen: Sequence[Place]) -> Iterator[tuple[Place, str]]:
    """Yield the verdict of each place."""
    for place in chosen:
        yield place, verdict(place)


def main(part: str = "") -> None:
    """Print what is wrong with every place of every model, and how many there are of each verdict."""
    counts: Counter[str] = Counter()
    for place, found in verdicts(places(part)):
        counts[found.split(":")[0]] += 1
        if found.startswith("wrong"):
            print(place, found, flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
