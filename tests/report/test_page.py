"""The page is well formed, fetches nothing, stays small, and says in words and tables whatever it draws."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from onnxprune.evidence.limits import apart
from onnxprune.report import GroupLine, Report, Side, headline, why
from onnxprune.report.decision_section import to_png
from onnxprune.report.layout import sections
from onnxprune.report.page import to_html
from onnxprune.report.pictures import PICTURES

VOID = {"meta", "br", "input", "link", "img"}
HOSTILE = "</title><script>alert(1)</script>\x1b[2J\u202e\"'&"


class Tree(HTMLParser):
    """Checks that tags are closed in order, and collects what tests look at."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.feed(page)
        self.close()
        self.faults += [f"{tag} is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs, _ in self.tags if name == tag]


def full(name: str = "layer", many: int = 6, *, failed: bool = False) -> Report:
    """Return a report that has every part that can be drawn."""
    layers = [
        {"name": f"{name}{i}", "op_type": "Conv", "operator": "Conv", "before": 0.1 * i, "after": 0.01 * i}
        | {"used": True, "note": None, "sqnr_db": 20.0 + i, "alone_sqnr_db": None, "precision": "int8"}
        for i in range(many)
    ]
    weights = [
        {"name": f"{name}{i}", "operator": "Conv", "weights": 100, "zeros": 50, "error": 0.1, "magnitude_error": 0.2}
        | {"reason": None, "method": "lstsq", "params": 100, "params_left": 40, "ranks": [4], "form": "svd"}
        for i in range(many)
    ]
    details: dict[str, Any] = {
        "argv": ["prune", f"{name}.onnx", "--ratio", "0.4"],
        "versions": {"onnxprune": "0", "onnxruntime": "1"},
        "machine": "a machine",
        "date": "2026-01-31 12:00 UTC",
        "recipe": {"model": f"{name}.onnx", "steps": [{"prune": {"ratio": 0.4}}]},
        "verdict": {"status": "failed" if failed else "good", "reasons": [f"as '{name}' says."]},
        "gates": [{"name": "min_agreement", "limit": 0.9, "value": 0.8 if failed else 0.98, "held": not failed}],
        "compensation": {
            "samples": 8,
            "layers": layers,
            "distance": {"before": 0.5, "after": 0.2, "curve": [[10, 0.3], [20, None], [30, 0.2], [40, 0.25]]},
        },
        "decisions": {
            "changed": {name: 2},
            "shown": [
                {"output": name, "sample": i, "before": 1, "after": 2, "confidence": [0.9, 0.8], "picture": picture}
                for i, picture in enumerate((to_png([bytes(8)] * 8, 8, colours=False), "javascript:alert(1)"))
            ],
        },
        "layers": layers,
        "quantization": {"mode": "static"},
        "compared_layers": layers,
        "layer_bound_db": 22.0,
        "sensitivity": [
            {"group": f"{name}{i}", "kind": "channel", "size": 8, "macs_saved_at_half": 0.1}
            | {"error_at_0.25": 0.001 * i, "error_at_0.5": 0.1}
            for i in range(many)
        ],
        "samples": 8,
        "curve": [
            {"asked": a, "macs": a, "params": a, "kept": a > 0.5, "pareto": True, "cosine": None, "agreement": a}
            for a in (0.4, 0.6, 0.8)
        ],
        "steps": [
            {"step": "prune", "options": {"ratio": 0.4}, "params": 1, "macs": 1, "bytes": 500, "parity": {}},
            {"step": "quantize", "options": {}, "params": 1, "macs": 1, "bytes": 200, "parity": {}},
        ],
        "explain": {"group": name, "kind": "channel", "size": 8, "exact": True, "asked": "ratio 0.4", "reason": None}
        | {"sites": [{"tensor": f"{name}.w", "axis": 0, "role": "writes"}], "locks": []}
        | {
            "channels": [
                {"channel": i, "kept": i > 3, "score": 0.1 * i, "twin": None, "likeness": None, "reader": name}
                | {"weight": 1.0}
                for i in range(8)
            ]
        },
        "histogram": {"edges_ms": [1.0, 1.5, 2.0], "runs": {"a": [1, 2], "b": [3, 0]}},
        "sparsity": {"pattern": "-", "scope": "uniform", "score": "lstsq", "reconstructed": True, "weights": 600}
        | {"zeros": 300, "compressed_bytes": {"input": 10, "output": 5}, "layers": weights},
        "factors": {"whitened": True, "refitted": True, "layers": weights},
    }
    return Report(
        "prune",
        Side(f"{name}.onnx", "ab" * 32, 1000, 250, 4000),
        None if failed else Side("out.onnx", "cd" * 32, 400, 100, 1500),
        groups=[
            *(GroupLine(f"{name}{i}", "channel", 64, 40, details={"macs": 1000 * i}) for i in range(many)),
            *(
                GroupLine(f"{name}{i}:0", "axis", 10, 10, True, f"'{name}{i}' is an output of the model")
                for i in (1, 2)
            ),
            GroupLine("w:1", "axis", 5, 5, True, "Odd 'x': no rule for this operator"),
        ],
        parity={"logits": {"cosine": 0.99, "sqnr_db": 20.0, "max_abs": 0.1, "agreement": 0.98}},
        latency={
            "a": {"median_ms": 2.0, "p10_ms": 1.9, "p90_ms": 2.1, "runs": 5},
            "b": {"median_ms": 1.0, "p10_ms": 0.9, "p90_ms": 1.1, "runs": 5},
        },
        warnings=[f"odd {name}"],
        details=details,
    )


@pytest.mark.parametrize("name", ["layer", HOSTILE, "n" * 3000])
def test_the_page_is_well_formed_whatever_a_model_calls_its_parts(name: str) -> None:
    page = to_html(full(name))
    tree = Tree(page)
    assert tree.faults == []
    assert len(tree.all("script")) == 1 and not tree.all("a")
    assert [str(image["src"])[:22] for image in tree.all("img")] == ["data:image/png;base64,"]
    assert not [key for _, attrs, _ in tree.tags for key in attrs if key.startswith("on")]
    assert "\x1b" not in page and "\u202e" not in page


def test_the_page_fetches_nothing_and_forbids_it() -> None:
    page = to_html(full())
    assert not re.search(r"src=(?!\"data:image/png;base64,)|(?:href|action)=|https?:|@import|url\(", page)
    policy = next(attrs for attrs in Tree(page).all("meta") if "http-equiv" in attrs)["content"]
    assert policy is not None and "default-src 'none'" in policy


def test_every_picture_has_a_title_a_description_and_a_table() -> None:
    page = to_html(full())
    blocks = re.findall(r"<section.*?</section>", page, re.S)
    drawn = [block for block in blocks if 'role="img"' in block]
    assert len(drawn) == len(PICTURES)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for block in drawn:
        named = re.search(r'aria-labelledby="(t\d+) (d\d+)"', block)
        assert named and all(name in ids for name in named.groups())
        assert "<title " in block and "<desc " in block and "<table>" in block and "<caption" in block


def test_tables_have_captions_and_scopes_and_headings_go_down_one_by_one() -> None:
    tree = Tree(to_html(full()))
    assert len(tree.all("caption")) == len(tree.all("table")) > 5
    assert all(head.get("scope") in ("col", "row") for head in tree.all("th"))
    levels = [int(tag[1]) for tag, _, _ in tree.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    assert tree.all("html")[0]["lang"] == "en" and len(tree.all("main")) == 1


@pytest.mark.parametrize("many", [0, 1, 5000])
def test_pages_stay_small_however_large_the_network_is(many: int) -> None:
    report = full("a.long.name.of.a.block/with/parts/", many)
    for part in ("compensation", "layers", "compared_layers", "sensitivity", "sparsity", "factors"):
        if not many:
            report.details.pop(part)
    page = to_html(report)
    assert Tree(page).faults == []
    assert len(page.encode()) < 400_000
    if many > 1000:
        assert "more rows: see the JSON report" in page


def test_the_first_sentence_says_what_is_left_and_what_was_kept() -> None:
    said = "40 % of the file, 38 % of the multiply-adds, 0.50 of the latency, agreement 98.0 %; 1 gate kept."
    assert headline.sentence(full()) == said
    assert "1 of 1 gate not kept (min-agreement 0.8, limit 0.9)" in headline.sentence(full(failed=True))
    page = to_html(full(failed=True))
    assert "Verdict: failed" in page and "not kept" in page and "onnxprune prune layer.onnx --ratio 0.4" in page
    assert "ratio: 0.4" in page and "a machine" in page


def test_reasons_that_differ_in_names_only_are_one_row_with_what_helps() -> None:
    (section,) = why.reasons(full())
    assert section.table is not None
    outputs, unknown = section.table.rows
    assert "onnxprune trim" in outputs[2] and outputs[3:] == ("2", "20")
    assert "rule" in unknown[2] and unknown[3:] == ("1", "5")


@pytest.mark.parametrize("change", [lambda v: float("nan"), lambda v: None, lambda v: 0.0])
def test_pictures_bear_figures_that_are_missing(change: Callable[[float], float | None]) -> None:
    report = full()
    for layer in report.details["layers"]:
        layer["sqnr_db"] = change(layer["sqnr_db"])
        layer["before"], layer["after"] = change(layer["before"]), change(layer["after"])
    assert Tree(to_html(report)).faults == []


def test_pictures_are_named_by_the_sections_that_have_them() -> None:
    assert {section.picture for section in sections(full())} - {""} == set(PICTURES)


def test_commands_that_make_no_model_say_what_they_found() -> None:
    rows = [{"group": name, "error_at_0.25": 0.1, "error_at_0.5": error} for name, error in (("a", 0.2), ("b", 0.03))]
    assert headline.sentence(Report("sensitivity", details={"sensitivity": rows})) == (
        "With 50% of one group gone, 'b' (0.03) costs least and 'a' (0.2) most."
    )
    channels = [{"kept": True}, {"kept": False}, {"kept": False}]
    group = {"group": "conv1", "size": 3, "reason": None, "channels": channels}
    assert headline.sentence(Report("explain", details={"explain": group})) == "2 of 3 channels of 'conv1' go."
    assert headline.sentence(Report("verify", details={"signed": {"files": ["a", "b"]}})) == "2 files as signed."


def test_a_value_that_misses_a_limit_by_little_is_not_rounded_to_it() -> None:
    report = full(failed=True)
    report.details["gates"] = [{"name": "min_cosine", "limit": 0.99999, "value": 0.999965834, "held": False}]
    assert "min-cosine 0.99997, limit 0.99999" in headline.sentence(report)
    assert apart(0.99999, 1.0, 4) == "0.99999" and apart(0.95, 0.9, 4) == "0.9500" and apart(19.99, 20.0, 1) == "19.99"
