"""The table of the README: one real network, every method alone and combined.

python benchmarks/combined_table.py [--network fm_resnet20] [--images 10000] [--write README.md]

Size, MACs, latency (batch 1, 1 thread, in turns with the original) and accuracy on test images that no method has seen;
512 other images without labels are the data of every step.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from models.eval import evaluate

DATA = ROOT / "models/data/fmnist_calib.npz"
MARKS = "<!-- combined -->\n", "<!-- end of combined -->\n"
INT8 = "quantize: {mode: static, format: qoperator}"
RECIPES = {
    "pruned, 30 % of the channels": ["prune: {ratio: 0.3}"],
    "sparse, 2:4": ["sparsify: {pattern: 2:4}"],
    "factorized, 0.6 of the parameters": ["factorize: {params: 0.6}"],
    "quantized, static int8": ["quantize: {mode: static}"],
    "pruned 30 %, then int8": ["prune: {ratio: 0.3}", INT8],
    "pruned 30 % (widths for float), then int8": ["prune: {ratio: 0.3, precision: float32}", INT8],
    "pruned 20 %, 2:4, then int8": [
        "prune: {ratio: 0.2}",
        "sparsify: {pattern: 2:4}",
        "quantize: {mode: static, format: qoperator}",
    ],
}


def onnxprune(*args: object) -> subprocess.CompletedProcess[str]:
    """Run a command of this checkout."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def made(model: Path, folder: Path) -> dict[str, tuple[Path, dict[str, int]]]:
    """Return name -> (file, its figures); what is refused is told and left out."""
    found = {}
    for number, (name, steps) in enumerate(RECIPES.items()):
        recipe, target = folder / f"{number}.yaml", folder / f"{number}.onnx"
        recipe.write_text("threads: 1\nsteps:\n" + "".join(f"  - {step}\n" for step in steps))
        done = onnxprune("run", recipe, "--model", model, "--data", DATA, "-o", target, "--json")
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        report = json.loads(done.stdout)
        found.setdefault("original", (model, report["input"]))
        found[name] = target, report["output"]
    return found


def table(network: str, images: int) -> str:
    """Return the table in Markdown."""
    model = ROOT / "models/trained" / network / "model.onnx"
    with tempfile.TemporaryDirectory() as folder:
        found = made(model, Path(folder))
        files = [file for file, _ in found.values()]
        benched = onnxprune("bench", *files, "--threads", 1, "--runs", 300, "--json")
        latency = list(json.loads(benched.stdout)["latency"].values())
        first = latency[0]["median_ms"]
        lines = [
            f"| {network} | file | of the original | MACs | latency | of the original | accuracy |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for (name, (file, side)), time in zip(found.items(), latency, strict=True):
            size = file.stat().st_size
            share, ratio = size / files[0].stat().st_size, time["median_ms"] / first
            cells = [f"{size / 1e3:.0f} kB", f"{share:.2f}", f"{side['macs'] / 1e6:.2f} M"]
            cells += [f"{time['median_ms']:.3f} ms", f"{ratio:.2f}", f"{100 * evaluate(file, images):.2f} %"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and put it between the marks of a file if asked."""
    parser = argparse.ArgumentParser(description="One network, every method alone and combined.")
    parser.add_argument("--network", default="fm_resnet20", help="a folder of models/trained with 28 x 28 images")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--write", type=Path, help="file with the marks <!-- combined --> and <!-- end of combined -->")
    options = parser.parse_args()
    text = table(options.network, options.images)
    print(text, end="")
    if options.write is not None:
        before = options.write.read_text()
        start, end = MARKS
        pattern = re.escape(start) + r".*?" + re.escape(end)
        if not re.search(pattern, before, re.DOTALL):
            sys.exit(f"{options.write}: has no lines {start.strip()} and {end.strip()}.")
        options.write.write_text(re.sub(pattern, lambda _: f"{start}{text}{end}", before, flags=re.DOTALL))


if __name__ == "__main__":
    main()
