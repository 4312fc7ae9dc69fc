"""A report is the contract's JSON, readable text without control codes, and a page that stands alone."""

import io
import json
import re

from rich.console import Console

from onnxprune.report import GroupLine, Report, Side, figures
from onnxprune.report.page import to_html
from onnxprune.report.text import common_prefix, print_report


def example() -> Report:
    report = Report(
        "prune",
        Side("<b>.onnx", "ab", 1_000_000, 250_000, 4_090_000_000),
        Side("b-pruned.onnx", "cd", 500_000, 125_000, 1_000_000_000),
        groups=[
            GroupLine("conv1", "channel", 64, 40),
            GroupLine("w9:0", "axis", 10, 10, True, "'logits' is an output of the model"),
        ],
        parity={"logits": {"cosine": 0.5, "sqnr_db": 3.0, "max_abs": None, "agreement": 0.25}, "boxes": None},
        latency={"b.onnx": {"median_ms": 2.0, "p10_ms": 1.9, "p90_ms": 2.1, "runs": 5}},
        warnings=["odd <script>"],
        details={"seed": 0, "inputs": "4 random inputs"},
    )
    with report.stage("load"):
        pass
    return report


def text(report: Report, **options: bool) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream), **options)
    return stream.getvalue()


def test_json_has_the_keys_of_the_contract() -> None:
    document = json.loads(example().to_json())
    assert document["format"] == "onnxprune-report" and document["version"] == 1
    wanted = {"command", "input", "output", "groups", "parity", "latency", "seconds", "warnings"}
    assert wanted <= set(document)
    assert set(document["input"]) == set(document["output"]) == {"path", "sha256", "bytes", "params", "macs"}
    for group in document["groups"]:
        assert {"name", "kind", "size", "kept", "locked", "reason"} <= set(group)
    assert document["seconds"]["load"] >= 0


def test_text_answers_what_it_cost_and_why_layers_stayed() -> None:
    shown = text(example())
    assert re.search(r"parameters +250 k +125 k +50\.0 %", shown)
    assert re.search(r"MACs +4\.09 G +1\.00 G", shown)
    assert "Removed 24 of 64 channels, in 1 of 1 group" in shown
    assert "w9:0: 'logits' is an output of the model" in shown
    assert "4 random inputs" in shown


def test_text_in_a_pipe_has_no_control_codes_and_no_cut_lines() -> None:
    report = example()
    report.groups = [GroupLine("n" * 300, "channel", 64, details={"sites": [], "macs": 1, "exact": True})]
    shown = text(report)
    assert "\x1b" not in shown and "n" * 300 in shown


def test_details_are_shown_when_asked_for_only() -> None:
    assert "conv1" not in text(example()) and "conv1" in text(example(), verbose=True)


def test_the_page_stands_alone_and_escapes_names() -> None:
    page = to_html(example())
    assert "&lt;b&gt;.onnx" in page and "<b>" not in page and page.count("<script") == 1
    assert not re.search(r"(?:src|href)=|https?://|@import", page)
    assert "Latency" in page and "conv1" in page


def test_figures_have_three_digits_and_the_right_unit() -> None:
    shown = [figures.count(value) for value in (0, 999, 1000, 25_557_032, 4_089_184_256, 999_960)]
    assert shown == ["0", "999", "1.00 k", "25.6 M", "4.09 G", "1.00 M"]
    assert figures.size(512) == "512 B" and figures.size(97_800_000) == "97.8 MB"
    assert figures.change(100, 61.2) == "-38.8 %"
    assert figures.count(None) == "?"


def test_figures_that_are_no_numbers_become_null_with_a_warning() -> None:
    report = Report("validate", details={"evaluation": {"before": float("nan"), "after": [1.0, float("inf")]}})
    document = json.loads(report.to_json())
    assert document["evaluation"] == {"before": None, "after": [1.0, None]}
    assert "evaluation.before" in document["warnings"][0] and "evaluation.after" in document["warnings"][0]


def test_a_narrow_terminal_tells_common_beginnings_once_and_breaks_no_number() -> None:
    report = Report("inspect", Side("b.onnx", "ab", 1_000_000, 250_000, 4_090_000_000))
    names = [f"/backbone/layers/layers.{number}/conv{number}/Conv" for number in range(4)]
    report.groups = [GroupLine(name, "channel", 123456, details={"macs": 987654321}) for name in names]
    stream = io.StringIO()
    print_report(report, Console(file=stream, force_terminal=True, width=48, no_color=True))
    shown = stream.getvalue()
    assert "Names begin with /backbone/layers/layers." in shown and "/backbone/layers/layers.0" not in shown
    assert shown.count("123456") == 4 and shown.count("988 M") == 4
    assert "/backbone/layers/layers.0/conv0/Conv" in text(report)  # a pipe gets whole names


def test_names_have_a_common_beginning_only_where_all_go_on_behind_it() -> None:
    assert common_prefix(["/model/layer/a", "/model/layer/b", "/model/layer/c"]) == "/model/layer/"
    assert common_prefix(["/model/layer/a", "/model/layer/b"]) == ""
    assert common_prefix(["/model/layer/", "/model/layer/b", "/model/layer/c"]) == ""
    assert common_prefix(["a", "b", "c"]) == common_prefix([]) == ""
