"""Every graph of the zoo pruned by half: does it run, what is left, is it exact; onnxsim beside it where installed.

    python benchmarks/zoo_table.py [NAME ..] [--ratio 0.5] [--no-peers] [--timeout 300] [--json FILE]

runs: saved (checker, strict shape inference), then run at every optimisation level of onnxruntime and two batch sizes,
with the same output shapes as the original. left: share of the parameters. parity: largest error relative to the
original with the removed slices zeroed, of a prune of exact groups only, and of all groups (there the normalisations of
the masked original see the kept positions); `~` marks outputs behind a sort or a rounding, where it says little.
Every graph has a process of its own, and so has the peer. Exit code 1 if a target of the project is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from models import zoo

PARITY_TARGET, MEDIAN_TARGET, LITTLE, LITTLE_ALLOWED = 1e-3, 0.32, 0.6, 3


def measure(name: str, ratio: float) -> dict[str, Any]:
    """Prune one graph and return what came out."""
    import onnxprune
    from onnxprune.evidence.compare import open_reference
    from onnxprune.graph import count
    from onnxprune.graph.session import LEVELS, open_session
    from onnxprune.graph.view import View

    source = onnxprune.load(zoo.build(name))
    reference = open_reference(source, threads=1, samples=2)
    feeds = [reference.samples[0], *([reference.stress] if reference.stress is not None else [])]
    expected = [_shapes(reference.session.run(feed)) for feed in feeds]
    result = onnxprune.prune(source, ratio=ratio, align=1, compensate="none", run=onnxprune.Run(verify=False))
    before, after = (sum(count.params(View(model), {}).values()) for model in (source, result.model))
    row: dict[str, Any] = {"left": after / before, "sizes": len(feeds), "seconds": sum(result.seconds.values())}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        onnxprune.save(result.model, path, source=source)
        for level in LEVELS:
            with open_session(path, threads=1, level=level) as session:
                found = [_shapes(session.run(feed)) for feed in feeds]
            if found != expected:
                raise RuntimeError(f"at level {level} the output shapes are {found}, not {expected}")
    row["all"] = _parity(result, reference)
    row["locks"] = _main_locks(result) if row["left"] > LITTLE else []
    try:
        exact = onnxprune.prune(
            source, ratio=ratio, align=1, exact_only=True, compensate="none", run=onnxprune.Run(verify=False)
        )
        row["exact"] = _parity(exact, reference)
    except onnxprune.NothingToPruneError:
        row["exact"] = None
    return row


def _shapes(outputs: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in outputs.items()}


def _parity(result: Any, reference: Any) -> tuple[float, bool]:
    """Return the largest error of the outputs that are judged, and whether one is behind a step."""
    from onnxprune.evidence.compare import self_noise
    from onnxprune.evidence.masked import masked_parity
    from onnxprune.evidence.oracle import masked_model
    from onnxprune.graph.session import open_session

    masked = masked_model(result.channels, result.keep)
    with open_session(masked, threads=1) as zeroed, open_session(result.model, threads=1) as pruned:
        outcome = masked_parity(
            reference, zeroed, pruned, lambda: self_noise(reference, threads=1), result.channels.view
        )
    return outcome.worst, bool(outcome.unsure)


def _main_locks(result: Any) -> list[str]:
    largest = sorted(result.channels.locks, key=lambda lock: -lock.size)
    return list(dict.fromkeys(lock.reason for lock in largest))[:3]


def measure_peer(name: str, ratio: float) -> dict[str, Any]:
    """Do the same with onnxsim: simplify, prune, run."""
    import numpy as np
    import onnx
    import onnxruntime
    import onnxsim

    import onnxprune
    from onnxprune.evidence.compare import open_reference

    proto = zoo.build(name)
    reference = open_reference(onnxprune.load(proto), threads=1, samples=1)
    simplified, _ = onnxsim.simplify(proto)
    pruned = onnxsim.apply_structured_pruning(simplified, ratio)
    before, after = (sum(np.prod(t.dims) for t in _floats(model)) for model in (proto, pruned))
    row: dict[str, Any] = {"left": float(after / before), "runs": False}
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(pruned.SerializeToString(), options)
        session.run(None, {i.name: reference.samples[0][i.name] for i in session.get_inputs()})
        row["runs"] = True
    except Exception as error:
        row["error"] = str(error).splitlines()[0][:100]
    assert isinstance(pruned, onnx.ModelProto)
    return row


def _floats(proto: Any) -> list[Any]:
    constants = [a.t for n in proto.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    return [t for t in (*proto.graph.initializer, *constants) if t.data_type in (1, 10, 11, 16)]


def in_process(mode: str, name: str, ratio: float, timeout: float) -> dict[str, Any]:
    """Measure in a process of its own; what goes wrong there is the result."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", mode, "--ratio", str(ratio), name]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {timeout:g} s"}
    try:
        row: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
        return row
    except (IndexError, ValueError):
        lines = finished.stderr.strip().splitlines()
        return {"error": lines[-1][:160] if lines else f"exit code {finished.returncode}"}


def show(name: str, row: dict[str, Any], peer: dict[str, Any] | None) -> None:
    """Print one line."""
    if "error" in row:
        text = f"FAILED: {row['error']}"
    else:
        exact, everything = (_number(row[key]) for key in ("exact", "all"))
        text = f"left {row['left']:.3f}  parity {exact:>9s} exact, {everything:>9s} all  {row['seconds']:6.2f} s"
    if peer is not None:
        state = f"{peer['left']:.3f}{'' if peer['runs'] else ' BROKEN'}" if "left" in peer else "CRASHED"
        text += f"   onnxsim {state}"
    print(f"{name:30s} {text}", flush=True)


def _number(parity: tuple[float, bool] | None) -> str:
    return "none" if parity is None else f"{parity[0]:.1e}{'~' if parity[1] else ''}"


def summary(rows: dict[str, dict[str, Any]], peers: dict[str, dict[str, Any]]) -> int:
    """Print the totals; return 1 if a target is missed."""
    good = {name: row for name, row in rows.items() if "error" not in row}
    left = [row["left"] for row in good.values()]
    errors = [row["exact"][0] for row in good.values() if row["exact"] is not None and not row["exact"][1]]
    little = {name: row for name, row in good.items() if row["left"] > LITTLE}
    median, worst = statistics.median(left or [1.0]), max(errors, default=0.0)
    print(f"\nprunes and runs            {len(good)} of {len(rows)}")
    print(f"median of parameters left  {median:.3f} (target {MEDIAN_TARGET})")
    print(f"worst parity, exact groups {worst:.1e} (target {PARITY_TARGET:.0e})")
    print(f"above {LITTLE:.0%} left             {len(little)} (at most {LITTLE_ALLOWED})")
    for name, row in little.items():
        print(f"  {name} {row['left']:.3f}: {'; '.join(row['locks'])}")
    if peers:
        running = [peer["left"] for peer in peers.values() if peer.get("runs")]
        print(f"onnxsim: runs {len(running)} of {len(peers)}, median left {statistics.median(running or [1.0]):.3f}")
    missed = len(good) < len(rows) or median > MEDIAN_TARGET or worst > PARITY_TARGET or len(little) > LITTLE_ALLOWED
    return int(missed)


def main() -> int:
    """Measure all graphs, or one as a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--no-peers", action="store_true", help="leave onnxsim out")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one graph")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work = measure if options.worker == "ours" else measure_peer
        print(json.dumps(work(options.names[0], options.ratio)))
        return 0
    has_peer = not options.no_peers and importlib.util.find_spec("onnxsim") is not None
    rows, peers = {}, {}
    for name in options.names or zoo.names():
        rows[name] = in_process("ours", name, options.ratio, options.timeout)
        if has_peer:
            peers[name] = in_process("peer", name, options.ratio, options.timeout)
        show(name, rows[name], peers.get(name))
    if options.json:
        options.json.write_text(json.dumps({"onnxprune": rows, "onnxsim": peers}, indent=1))
    return summary(rows, peers)


if __name__ == "__main__":
    sys.exit(main())
