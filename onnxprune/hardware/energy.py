"""An estimate of the energy of one sample: multiply-adds by type, and bytes that are moved.

Source: M. Horowitz, Computing's Energy Problem, ISSCC 2014, table for 45 nm and 0.9 V. A real device differs by a large
factor; shares of it between two models are what the figure is good for.
"""

from __future__ import annotations

from math import prod

from onnxprune.graph.count import WEIGHT_BITS, macs, node_key
from onnxprune.graph.trace import Trace
from onnxprune.graph.view import View

SOURCE = "estimate after Horowitz, ISSCC 2014 (45 nm), not a measurement"
MULTIPLY_ADD = {32: 3.7 + 0.9, 64: 2 * (3.7 + 0.9), 16: 1.1 + 0.4, 8: 0.2 + 0.03, 4: 0.2 + 0.03}
"""Bits of the weights -> picojoules of one multiply-add; four bits are computed in eight."""
DRAM_BYTE, CACHE_BYTE = 640 / 4, 100 / 8
"""Picojoules of a byte that comes from memory, and of one that comes from a cache of 1 MB."""
CACHE_BYTES = 1 << 20


def joules(view: View, traced: Trace) -> float:
    """Return the estimated joules of one run at the sizes of a trace.

    Weights come from memory once; what nodes read and write besides comes from a cache where one tensor fits into it.
    """
    counted = macs(view, traced.shapes)
    arithmetic = sum(
        MULTIPLY_ADD[_bits(view, node.inputs)] * counted.pop(node_key(node), 0)
        for node in view.nodes
        if node_key(node) in counted
    )
    moved = 0.0
    for node in view.nodes:
        for key in (*node.inputs, *node.outputs):
            size = prod(traced.shapes.get(key, ())) * 4 if key and key not in view.parameters else 0
            moved += size * (CACHE_BYTE if size <= CACHE_BYTES else DRAM_BYTE)
    weights = sum(
        parameter.elements * WEIGHT_BITS.get(parameter.data_type, 64) / 8 for parameter in view.parameters.values()
    )
    return (arithmetic + moved + weights * DRAM_BYTE) * 1e-12


def _bits(view: View, inputs: tuple[str, ...]) -> int:
    """Return the bits of the narrowest weight that a node reads, through what turns it into floats too."""
    found = [32]
    for key in inputs:
        stored = view.stored(key, ("Identity", "Transpose", "DequantizeLinear")) if key else None
        if stored is not None and len(stored.dims) > 1:
            found.append(WEIGHT_BITS.get(stored.parameter.data_type, 32))
    return min(found)
