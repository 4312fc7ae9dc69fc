"""What build servers read: Markdown that cannot be broken by names, and JUnit that fails where the command does."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from onnxprune.report import Report
from onnxprune.report.junit import to_junit
from onnxprune.report.markdown import to_markdown
from tests.cli.conftest import Run
from tests.report.test_page import HOSTILE, full


def cases(report: Report) -> dict[str, list[str]]:
    suite = ElementTree.fromstring(to_junit(report))
    found = {str(case.get("name")): [part.tag for part in case] for case in suite}
    found.pop("None", None)
    assert int(str(suite.get("tests"))) == len(found)
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(str(suite.get(count))) == sum(tag in parts for parts in found.values())
    return found


def test_gates_and_verdict_are_test_cases() -> None:
    assert cases(full()) == {"verdict": ["system-out"], "min-agreement": []}
    failed = cases(full(failed=True))
    assert failed == {"verdict": ["failure", "system-out"], "min-agreement": ["failure"]}


def test_what_is_not_judged_is_skipped_and_an_end_without_a_result_is_an_error() -> None:
    unsure = Report("prune", details={"verdict": {"status": "not judged", "reasons": ["made up"]}})
    assert cases(unsure) == {"verdict": ["skipped", "system-out"]}
    ended = Report("prune", details={"error": {"code": 4, "message": "nothing to prune"}})
    assert cases(ended) == {"verdict": ["error", "system-out"]}
    poor = Report("prune", details={"verdict": {"status": "poor", "reasons": ["far"]}})
    assert cases(poor) == {"verdict": ["system-out"]}


@pytest.mark.parametrize("name", [HOSTILE, "a|b`c\n\n# d <img src=x> [e](f) @g", "\ufffe\x00"])
def test_names_break_neither(name: str) -> None:
    report = full(name)
    cases(report)
    told = to_markdown(report)
    outside = "".join(part for index, part in enumerate(told.split("```")) if index % 2 == 0)
    assert "<" not in outside and told.count("```") == 2
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in rows[:2]}
    assert rows and len(widths) == 1


def test_the_summary_starts_with_the_verdict() -> None:
    lines = to_markdown(full(failed=True)).splitlines()
    assert lines[0].startswith("### onnxprune prune") and "gate not kept" in lines[2]
    assert lines[4].startswith("Verdict: **failed**")
    assert "| min-agreement | not kept | 0.9 | 0.8 |" in lines


def test_a_failed_gate_writes_summary_and_junit(run: Run, model: Path, data: Path, tmp_path: Path) -> None:
    junit, summary, output = tmp_path / "out.xml", tmp_path / "step-summary", tmp_path / "small.onnx"
    more = ("--min-cosine", 0.99999, "--compensate", "none", "-o", output, "--threads", 1)
    done = run("prune", model, "--data", data, *more, "--report", junit, "--summary", summary)
    assert done.exit_code == 3 and not output.exists()
    suite = ElementTree.fromstring(junit.read_text())
    assert {case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None} == {
        "verdict",
        "min-cosine",
    }
    assert "Verdict: **failed**" in summary.read_text()


def test_summaries_are_outputs_as_others_are(run: Run, model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    assert run("prune", model, "--summary", model).exit_code == 2
    same = tmp_path / "one.md"
    assert run("prune", model, "--summary", same, "--report", same).exit_code == 2
    assert model.read_bytes() == before and not same.exists()
    assert run("inspect", model, "--report", tmp_path / "x.txt").exit_code == 2
    assert run("inspect", model, "--report", same).exit_code == 0 and "onnxprune inspect" in same.read_text()


def test_a_recipe_names_a_summary(run: Run, model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.json"
    outputs = {"output": "small.onnx", "summary": "s.md"}
    steps = [{"prune": {"ratio": 0.25, "compensate": "none"}}]
    recipe.write_text(json.dumps({"model": model.name, "steps": steps, "outputs": outputs}))
    assert run("run", recipe).exit_code == 0
    assert (tmp_path / "s.md").read_text().startswith("### onnxprune run")
