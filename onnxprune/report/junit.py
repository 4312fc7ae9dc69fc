"""A report as JUnit XML: the verdict and every gate as a test case, as build servers read them."""

from __future__ import annotations

from xml.etree import ElementTree

from onnxprune.files.shown import one_line
from onnxprune.report import headline
from onnxprune.report.record import Report

UNJUDGED = frozenset({"not judged", ""})


def to_junit(report: Report) -> str:
    """Return the XML. A gate that is not kept is a failure, what ended the command otherwise an error.

    A verdict that judges nothing is a skipped test; a poor one fails only where the command failed by it.
    """
    model = report.input.path if report.input is not None else None
    suite = ElementTree.Element("testsuite", name=f"onnxprune {report.command}", time=_seconds(report))
    if model:
        properties = ElementTree.SubElement(suite, "properties")
        ElementTree.SubElement(properties, "property", name="model", value=_text(model))
    _verdict(suite, report)
    for gate in report.details.get("gates") or ():
        case = _case(suite, report, gate["name"].replace("_", "-"))
        if not gate["held"]:
            value = "nothing that could be judged" if gate["value"] is None else f"{gate['value']:.6g}"
            _told(case, "failure", f"limit {gate['limit']:g}, found {value}")
    for name in ("failure", "error", "skipped"):
        plural = name if name == "skipped" else f"{name}s"
        suite.set(plural, str(len(suite.findall(f"testcase/{name}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    ElementTree.indent(suite)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(suite, encoding='unicode')}\n"


def _verdict(suite: ElementTree.Element, report: Report) -> None:
    case, status = _case(suite, report, "verdict"), headline.status(report)
    reasons = " ".join(report.details.get("verdict", {}).get("reasons", ()))
    error = report.details.get("error")
    if error is not None and error["code"] != 3:
        _told(case, "error", error["message"])
    elif status == "failed" or error is not None:
        _told(case, "failure", reasons or (error or {}).get("message", ""))
    elif status in UNJUDGED:
        _told(case, "skipped", reasons or "nothing to judge")
    said = f"{status}: {headline.sentence(report)} {reasons}".strip(": ")
    ElementTree.SubElement(case, "system-out").text = _text(said)


def _case(suite: ElementTree.Element, report: Report, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=f"onnxprune.{report.command}", name=_text(name))


def _told(case: ElementTree.Element, kind: str, message: str) -> None:
    ElementTree.SubElement(case, kind, message=_text(message)).text = None if kind == "skipped" else _text(message)


def _seconds(report: Report) -> str:
    return f"{sum(report.seconds.values()):.3f}"


def _text(text: str) -> str:
    r"""Return a text that XML can hold: characters that draw nothing are spelled out, so are U+FFFE and U+FFFF."""
    return one_line(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
