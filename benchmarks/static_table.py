"""Static int8 by default against onnxruntime's quantize_static in the same run: points lost, size, CPU seconds, time.

python benchmarks/static_table.py FOLDER..    # each with model.onnx, eval.py (prints JSON with "value"), calib.npz
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quantize_table import COMMAND, THEIRS_STATIC, run
from onnxprune.validate.bench import bench


def value(folder: Path, model: Path) -> float:
    """Return the network's own metric."""
    done = subprocess.run([sys.executable, folder / "eval.py", model], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["value"])


def main(folders: list[str]) -> None:
    """Print one line a network and way."""
    print(f"{'network':20} {'way':12} {'lost':>7} {'size':>5} {'CPU s':>6} {'time':>5}")
    for folder in map(Path, folders):
        source, data = folder / "model.onnx", folder / "calib.npz"
        base = value(folder, source)
        with tempfile.TemporaryDirectory() as place:
            target = Path(place) / "out.onnx"
            ours = [*COMMAND, str(source), "--mode", "static", "--data", str(data), "--threads", "1", "-q", "-o"]
            theirs = [sys.executable, "-c", THEIRS_STATIC, str(source), f"{place}/p.onnx", str(target), str(data)]
            for way, command in (("onnxprune", [*ours, str(target)]), ("onnxruntime", theirs)):
                target.unlink(missing_ok=True)
                seconds, _, error = run(command)
                if error or not target.exists():
                    line = f"{folder.name:20} {way:12} {'-':>7} {'-':>5} {seconds:6.1f} {'-':>5}"
                    print(line, f"{error[:60]}", flush=True)
                    continue
                lost, size = base - value(folder, target), target.stat().st_size / source.stat().st_size
                before, after = bench([source, target], threads=1).values()
                time = after.median_ms / before.median_ms
                print(f"{folder.name:20} {way:12} {lost:7.4f} {size:5.2f} {seconds:6.1f} {time:5.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
