"""`onnxprune diff` on every graph of the zoo and its half: is the map of channels that values tell that of the plan?

    python benchmarks/diff_table.py [NAME ..]

known: tensors whose lost positions were found by values alone, without looking at the plan. wrong: tensors with other
positions than the plan has. told: tensors right by what a saved result says itself. Exit code 1 if one is wrong or not
found.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from models import zoo


def measure(name: str) -> tuple[int, int, int, int, float]:
    """Return (tensors that lost positions, those found, wrong, right by the record, seconds of the comparison)."""
    import onnxprune
    from onnxprune.differences.difference import diff
    from onnxprune.graph.provenance import with_provenance

    source = onnxprune.load(zoo.build(name))
    result = onnxprune.prune(source, ratio=0.5, align=1, compensate="none", run=onnxprune.Run(verify=False))
    pruned = onnxprune.load(result.model.proto)
    start = time.process_time()
    found = diff(source, pruned).removed
    wanted = {tensor: axes for tensor, axes in result.plan.removed.items() if axes}
    wrong = sum(found[tensor] != wanted.get(tensor) for tensor in found)
    seconds = time.process_time() - start
    saved = onnxprune.load(with_provenance(result.model.proto, *result.model.origin))
    told = diff(source, saved)
    right = sum(told.removed.get(tensor) == axes for tensor, axes in wanted.items()) if told.link.how == "record" else 0
    return len(wanted), sum(tensor in found for tensor in wanted), wrong, right, seconds


def main(names: list[str]) -> int:
    """Print the table; return the exit code."""
    print(f"{'network':36}{'tensors':>8}{'known':>8}{'wrong':>7}{'told':>7}{'CPU s':>8}")
    bad = 0
    for name in names or zoo.names():
        tensors, known, wrong, right, seconds = measure(name)
        bad += wrong + 2 * tensors - known - right
        print(f"{name:36}{tensors:8}{known:8}{wrong:7}{right:7}{seconds:8.1f}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
