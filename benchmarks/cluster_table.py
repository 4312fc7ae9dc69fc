"""What a cluster gives and costs: the same bytes, who spends the seconds, what a killed worker changes.

    python benchmarks/cluster_table.py                       statistics, tune, finetune; about ten CPU minutes
    python benchmarks/cluster_table.py --only statistics --samples 4096
    python benchmarks/cluster_table.py --only tune finetune

Statistics are of mobilenet_v2 at 96 x 96 (structure of the zoo, random weights), one process of one thread against
`local:2` and against two workers of one thread that are started by hand. Where other work runs on the cores, the clock
says nothing; so CPU seconds are shown: of the one process, of the command, and of each worker. The command and its
busiest worker are what one waits for on free cores, so their sum with one worker against that with two is the speed-up
there; cores that are shared take more CPU seconds for the same work, with one worker and with two.
tune and finetune are of fm_mbv2, with a worker killed in the middle, and another one that comes instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from distributed import Client

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from models import zoo
from onnxprune import Gates, Run
from onnxprune.graph.model import Model
from tests.cluster.dask_processes import Processes

TRAINED = ROOT / "models" / "trained" / "fm_mbv2"
SIZE = 96


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description="The same work on a cluster and in one process.")
    parser.add_argument("--only", nargs="+", default=["statistics", "tune", "finetune"])
    parser.add_argument("--samples", type=int, default=4096)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster = Processes(folder)
        try:
            cluster.hire()
            for part in args.only:
                print(f"\n{part}")
                if part == "statistics":
                    statistics(folder, cluster, args.samples)
                    continue
                if len(cluster.workers) < 2:
                    cluster.hire()
                killed(part, cluster)
        finally:
            cluster.close()


def statistics(folder: Path, cluster: Processes, samples: int) -> None:
    """Compare bytes and CPU seconds of statistics."""
    model, data = folder / "net.onnx", folder / "data.npy"
    onnx.save(_network(), model)
    rng = np.random.default_rng(0)
    np.save(data, rng.standard_normal((samples, 3, SIZE, SIZE)).astype(np.float32))
    print("| how | seconds | CPU s, command | CPU s, workers | the same bytes |\n| --- | --- | --- | --- | --- |")
    by_address = Run(threads=1, cluster=cluster.address)
    runs = {"one process, one thread": Run(threads=1), "one worker by hand": by_address}
    runs |= {"two workers by hand": by_address, "local:2": Run(threads=1, cluster="local:2")}
    first, waited = b"", 0.0
    for name, run in runs.items():
        by_hand = "hand" in name
        if name.startswith("two"):
            cluster.hire()
        before = _workers(cluster) if by_hand else {}
        start, cpu = time.perf_counter(), time.process_time()
        found = onnxprune.collect_statistics(model, data, run=run).to_bytes()
        seconds, own = time.perf_counter() - start, time.process_time() - cpu
        each = [after - before[worker] for worker, after in _workers(cluster).items()] if by_hand else []
        first = first or found
        shown = " + ".join(f"{value:.1f}" for value in each) or "-"
        print(f"| {name} | {seconds:.1f} | {own:.1f} | {shown} | {'yes' if found == first else 'NO'} |", flush=True)
        if each:
            busiest = own + max(each)
            if waited:
                print(f"  two workers on free cores are {waited / busiest:.2f} times as fast as one")
            waited = busiest


def killed(part: str, cluster: Processes) -> None:
    """Compare a result in one process with one whose worker was killed in the middle."""
    work: Callable[..., object] = _tune if part == "tune" else _finetune
    start = time.perf_counter()
    alone = work(Run(threads=1), lambda text: None)
    middle = time.perf_counter()
    done = list[str]()

    def tell(text: str) -> None:
        if not done and text.startswith(("trying", "gradient step 12")):
            done.append(text)
            cluster.hire()
            threading.Timer(1.0, cluster.kill_one).start()

    shared = work(Run(threads=1, cluster=cluster.address), tell)
    end = time.perf_counter()
    same = "the same bytes" if alone == shared else "OTHER BYTES"
    print(f"one process {middle - start:.1f} s; killed at '{done[0]}', {end - middle:.1f} s: {same}", flush=True)


def _tune(run: Run, tell: Callable[[str], None]) -> bytes:
    data = zoo.calibration(TRAINED / "model.onnx")
    gates = Gates(min_agreement=0.9)
    found = onnxprune.tune(TRAINED / "model.onnx", data, run=run, gates=gates, progress=tell, step=0.3, finest=0.1)
    return _content(found.model)


def _finetune(run: Run, tell: Callable[[str], None]) -> bytes:
    model, data = TRAINED / "model.onnx", zoo.calibration(TRAINED / "model.onnx")
    pruned = onnxprune.prune(model, data, ratio=0.3, compensate="lstsq").model
    return _content(onnxprune.finetune(model, pruned, data, run=run, steps=40, progress=tell).model)


def _content(model: Model) -> bytes:
    return bytes(model.proto.SerializeToString(deterministic=True))


def _workers(cluster: Processes) -> dict[str, float]:
    """Return the CPU seconds of every worker."""
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(len(cluster.workers))
        return dict(client.run(time.process_time))


def _network() -> onnx.ModelProto:
    proto = zoo.build("mobilenet_v2")
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = SIZE
    del proto.graph.value_info[:]
    return proto


if __name__ == "__main__":
    main()
