"""The pictures of docs/how.md from real runs: `python benchmarks/how_figures.py [FOLDER]`.

A prune of fm_resnet20 (`models/trained`) to half of its multiply-adds on the 512 images of `models/data`, and the
scores of one of its groups. They are the charts of the reports, as SVG files that have their colours with them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxprune
from onnxprune.job.sides import describe
from onnxprune.methods.explain import explain
from onnxprune.report import Report, pictures
from onnxprune.report.charts.frame import Chart, written
from onnxprune.report.look import STYLE

MODEL = ROOT / "models" / "trained" / "fm_resnet20" / "model.onnx"
DATA = ROOT / "models" / "data" / "fmnist_calib.npz"
WIDTH = 720


def to_svg(chart: Chart) -> str:
    """Return a chart as a file of its own, which follows the reader's light or dark scheme."""
    schemes = re.findall(r"(?m)^(?::root.*?\}|@media \(prefers.*?\} \})", STYLE, re.DOTALL)
    rules = [rule for rule in re.findall(r"\.[\w.]+ \{[^}]*\}", STYLE) if "fill:" in rule or "stroke:" in rule]
    style = "\n".join([*schemes, *rules])
    paper = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    fonts = "text { font: 13px system-ui, sans-serif; fill: var(--ink); } .tick { font-size: 11px; fill: var(--soft); }"
    title, told = written(chart.title), written(chart.description)
    body = re.sub(r' data-tip="[^"]*"', "", chart.body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{chart.height + 16}">'
        f"<title>{title}</title><desc>{told}</desc><style>{style}\n{fonts}</style>{paper}"
        f'<svg y="8" width="100%" height="{chart.height}" style="overflow: visible">{body}</svg></svg>\n'
    )


def main(folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    run = onnxprune.Run(threads=1)
    result = onnxprune.prune(MODEL, DATA, macs=0.5, effort="quick", run=run)
    channels = onnxprune.analyse(MODEL)
    largest = max(channels.groups, key=lambda group: group.size)
    told = explain(channels, largest.name, onnxprune.PruneOptions(ratio=0.5, align=1))
    scored = Report("explain", input=describe(onnxprune.load(MODEL)), details={"explain": told.to_json()})
    report = result.report
    for name, chart in {
        "widths": pictures.widths(report),
        "errors": pictures.errors(report),
        "scores": pictures.scores(scored),
    }.items():
        if chart is not None:
            (folder / f"{name}.svg").write_text(to_svg(chart))
            print(f"{name}.svg: {chart.description}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
