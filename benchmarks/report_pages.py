"""Reports of five real runs, opened in a browser: `python benchmarks/report_pages.py FOLDER [--pictures FOLDER]`.

prune, tune, a recipe whose gate fails, quantize and diff, on a Fashion-MNIST network of `models/trained`. Each page is
looked at by `tests/report/browser.cjs` at 1200 and 360 pixels, light and dark: nothing is fetched, nothing is wider
than the window, axe-core finds no serious fault. Needs chromium and npm. With `--pictures` the upper part of every
screenshot is written there as a small WebP file (needs pillow).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NETWORK = ROOT / "models" / "trained" / "fm_resnet20" / "model.onnx"
DATA = ROOT / "models" / "data" / "fmnist_calib.npz"
RECIPE = """
model: model.onnx
data: calib.npz
samples: 256
steps:
  - prune: {ratio: 0.3, effort: quick, gates: {min_agreement: 0.9}}
  - factorize: {params: 0.5}
gates: {min_agreement: 0.99}
"""
COMMANDS: dict[str, tuple[str, int]] = {
    "prune": (
        "prune model.onnx --data calib.npz --macs 0.5 --eval eval.py:evaluate --max-drop 0.05 --steps 200 "
        "--threads 1 -o small.onnx",
        0,
    ),
    "tune": (
        "tune model.onnx --data calib.npz --samples 128 --min-agreement 0.93 --effort quick --step 0.2 --finest 0.1 "
        "--threads 1 -o tuned.onnx",
        0,
    ),
    "failed-gate": ("run recipe.yaml --threads 1 -o failed.onnx", 3),
    "quantize": ("quantize model.onnx --mode static --data calib.npz --samples 128 --threads 1 -o int8.onnx", 0),
    "diff": ("diff model.onnx small.onnx", 1),
}
"""Page -> command, and the exit code that it ends with."""
HEIGHT = {1200: 1500, 360: 1500}
"""Pixels of a page that a picture shows."""


def write_pages(folder: Path) -> None:
    """Carry out the commands and write their pages."""
    desk = folder / "desk"
    desk.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(NETWORK, desk / "model.onnx")
    shutil.copyfile(DATA, desk / "calib.npz")
    here = f"TEST = Path({str(ROOT / 'models' / 'data' / 'fmnist_test.npz')!r})"
    evaluation = (ROOT / "models" / "eval.py").read_text()
    (desk / "eval.py").write_text(re.sub(r"^TEST = .*$", lambda _: here, evaluation, flags=re.MULTILINE))
    (desk / "recipe.yaml").write_text(RECIPE)
    for name, (words, code) in COMMANDS.items():
        command = [sys.executable, "-m", "onnxprune", *words.split(), "-q", "--report", f"{name}.html"]
        done = subprocess.run(command, cwd=desk, check=False)
        if done.returncode != code:
            raise SystemExit(f"{words}: ended with {done.returncode} instead of {code}")
        page = (desk / f"{name}.html").rename(folder / f"{name}.html")
        print(f"{name}: {page.stat().st_size / 1000:.0f} kB", flush=True)


def look(folder: Path, shots: Path) -> int:
    """Open the pages in chromium; return the exit code."""
    browser = shutil.which("chromium")
    if browser is None or shutil.which("npm") is None:
        raise SystemExit("chromium and npm are needed to look at pages.")
    with tempfile.TemporaryDirectory() as packages:
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", packages]
        subprocess.run([*install, "axe-core@4", "playwright-core@1"], check=True, stdout=subprocess.DEVNULL)
        modules = {"NODE_PATH": f"{packages}/node_modules", "BROWSER": browser, "SHOTS": str(shots)}
        command = ["node", str(ROOT / "tests" / "report" / "browser.cjs"), str(folder)]
        return subprocess.run(command, env={**os.environ, **modules}, check=False).returncode


def shrink(shots: Path, pictures: Path) -> None:
    """Write the upper part of every screenshot as WebP."""
    from PIL import Image

    pictures.mkdir(parents=True, exist_ok=True)
    for shot in sorted(shots.glob("*.png")):
        width = int(shot.stem.split("-")[-2])
        with Image.open(shot) as image:
            top = image.crop((0, 0, image.width, min(image.height, HEIGHT[width]))).convert("RGB")
            top.thumbnail((640, 1200))
            top.save(pictures / f"{shot.stem}.webp", quality=50, method=6)


def main() -> int:
    """Return the exit code of the browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    shots = options.folder / "shots"
    shots.mkdir(parents=True, exist_ok=True)
    write_pages(options.folder)
    code = look(options.folder, shots)
    if options.pictures is not None:
        shrink(shots, options.pictures)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
