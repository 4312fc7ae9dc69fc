"""Times the models of a folder where it runs. It stands alone: only numpy and onnxruntime, Python 3.8 or later.

python3 device_runner.py FOLDER RUNS SECONDS THREADS PROVIDER LIMIT

Every model `NAME.onnx` runs in turns with the others, on `NAME.npz` or on numbers made up for its inputs. Prints one
line of JSON: the version of onnxruntime, the machine, and the times of every run in ms, or why there are none.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import signal
import sys
import time
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def feeds(session: Any, path: str) -> dict[str, Any]:
    given = path[: -len(".onnx")] + ".npz"
    known = dict(np.load(given)) if os.path.exists(given) else {}  # noqa: PTH110  # as old as Python gets
    found = {}
    for item in session.get_inputs():
        if item.name in known:
            found[item.name] = known[item.name]
            continue
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in item.shape]
        kind = TYPES[item.type]
        values = np.random.RandomState(0).standard_normal(shape)  # the numpy of a board may be old
        found[item.name] = values.astype(kind) if np.issubdtype(kind, np.floating) else np.zeros(shape, kind)
    return found


def main(folder: str, runs: int, seconds: float, threads: int, provider: str, limit: int) -> None:
    signal.alarm(limit)  # who waits for it gives up then; what it leaves is removed by the shell around it
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    names: list[str] = []
    calls: list[Any] = []
    times: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.onnx"))):  # noqa: PTH118, PTH207
        name = os.path.basename(path)[: -len(".onnx")]  # noqa: PTH119
        try:
            session = ort.InferenceSession(path, options, providers=[provider])
            given = feeds(session, path)
            session.run(None, given)
        except Exception as error:
            failed[name] = str(error).splitlines()[0]
            continue
        names.append(name)
        calls.append((session, given))
        times[name] = []
    start = time.perf_counter()
    for turn in range(runs):
        for name, (session, given) in zip(names, calls):  # noqa: B905  # Python 3.8 has no strict
            begin = time.perf_counter()
            session.run(None, given)
            times[name].append(1000 * (time.perf_counter() - begin))
        if turn >= 2 and time.perf_counter() - start > seconds:
            break
    machine = "%s %s" % (platform.node(), platform.machine())  # noqa: UP031  # as above
    print(json.dumps({"onnxruntime": ort.__version__, "machine": machine, "times": times, "failed": failed}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
