"""A report as a CycloneDX machine-learning bill of materials: what a model was made from, how, and what was measured.

Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/, component of the type machine-learning-model.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError
from onnxprune.report import headline
from onnxprune.report.record import Report, Side

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

NAMESPACE = uuid.UUID("3f7c2b52-6f43-5e3c-9d0e-1c8f7c0d5a11")
"""Serial numbers are made from it and the hash of the result: the same result has the same one."""
FIGURES = ("cosine", "sqnr_db", "agreement")


def check_bom() -> None:
    """Make sure, before any work, that a bill of materials can be written.

    Raises:
        UsageError: the library for it is missing.
    """
    if find_spec("cyclonedx") is None:
        raise UsageError("a bill of materials needs cyclonedx-python-lib: pip install 'onnxprune[bom]'.")


def to_bom(report: Report) -> str:
    """Return the JSON of CycloneDX 1.6: result, source as its ancestor, data, versions, steps, figures."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType, Pedigree
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    result = _model(report.output, "result")
    if report.input is not None:
        notes = json.dumps(report.details.get("recipe", {}).get("steps", report.details.get("options")), sort_keys=True)
        result.pedigree = Pedigree(ancestors=[_model(report.input, "source")], notes=notes)
    result.properties.update(Property(name=f"onnxprune:{name}", value=value) for name, value in _facts(report))
    versions = report.details.get("versions", {})
    tools = [
        Component(name=name, version=version, type=ComponentType.APPLICATION) for name, version in versions.items()
    ]
    bom = Bom(
        serial_number=uuid.uuid5(NAMESPACE, str(report.output.sha256 if report.output else "")),
        metadata=BomMetaData(component=result, tools=ToolRepository(components=tools), timestamp=_date(report)),
        components=list(_data(report)),
    )
    bom.register_dependency(result, list(bom.components))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a result without data depends on nothing
        written: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    written["metadata"]["component"]["modelCard"] = _card(report)  # the library has no model cards
    return f"{json.dumps(written, indent=2, sort_keys=True)}\n"


def _model(side: Side | None, role: str) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    kind = ComponentType.MACHINE_LEARNING_MODEL
    if side is None:
        return Component(name=role, type=kind, bom_ref=role)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=side.sha256)] if side.sha256 else []
    sizes = {"bytes": side.bytes, "parameters": side.params, "multiply-adds": side.macs}
    properties = [Property(name=f"onnxprune:{name}", value=str(size)) for name, size in sizes.items() if size]
    name = Path(side.path).name if side.path else role
    return Component(name=name, type=kind, bom_ref=role, hashes=hashes, properties=properties)


def _data(report: Report) -> Iterator[Component]:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    data = report.details.get("data")
    if data:
        yield Component(
            name="calibration data",
            type=ComponentType.DATA,
            bom_ref="data",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=data["sha256"])],
            properties=[Property(name="onnxprune:samples", value=str(data["samples"]))],
        )


def _date(report: Report) -> datetime:
    text = str(report.details.get("date", ""))
    return datetime.strptime(text, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC) if text else datetime.now(UTC)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "command", report.command
    yield "seed", str(report.details.get("seed", 0))
    if report.details.get("machine"):
        yield "machine", str(report.details["machine"])
    reasons = " ".join(report.details.get("verdict", {}).get("reasons", ()))
    if headline.status(report):
        yield "verdict", f"{headline.status(report)}. {reasons}".rstrip()
    taken = report.details.get("footprint")
    if taken and taken.get("after"):
        for name, unit in (("activation_bytes", "bytes"), ("joules", "J, an estimate after Horowitz, ISSCC 2014")):
            yield f"sample:{name}", f"{taken['before'][name]} before, {taken['after'][name]} after ({unit})"
    for gate in report.details.get("gates") or ():
        value, held = gate["value"], "kept" if gate["held"] else "not kept"
        found = "not measured" if value is None else f"{value:.6g}"
        yield f"gate:{gate['name']}", f"limit {gate['limit']:g}, found {found}, {held}"


def _card(report: Report) -> dict[str, object]:
    """Return the model card: what was measured on which outputs, and on what."""
    measured = [
        {"type": name, "value": f"{figures[name]:.6g}", "slice": f"output {output}"}
        for output, figures in report.parity.items()
        for name in FIGURES
        if figures and figures.get(name) is not None
    ]
    evaluation = report.details.get("evaluation", {})
    measured += [
        {"type": f"evaluation {name}", "value": f"{evaluation[name]:.6g}"}
        for name in ("before", "after")
        if evaluation.get(name) is not None
    ]
    card: dict[str, Any] = {"quantitativeAnalysis": {"performanceMetrics": measured}}
    if report.details.get("inputs"):
        card["considerations"] = {"technicalLimitations": [f"Measured on {report.details['inputs']}."]}
    return card
