"""Writes pages of reports for the browser: python -m tests.report.pages FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from onnxprune.report.page import to_html
from tests.report.test_page import HOSTILE, full


def main(folder: Path) -> None:
    """Write a page with everything, one of a failed gate, and one with hostile and long names."""
    reports = {"full": full(many=30), "failed": full(failed=True), "hostile": full(HOSTILE), "long": full("n" * 300)}
    for name, report in reports.items():
        (folder / f"{name}.html").write_text(to_html(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
