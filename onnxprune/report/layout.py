"""What a report shows to people: sections of lines and tables, which the terminal and the page both draw."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from onnxprune.report import (
    branch_section,
    changes,
    decision_section,
    explained,
    facts,
    figures,
    pipeline,
    target_section,
    thin,
    walk_section,
    why,
)
from onnxprune.report.record import GroupLine, Report
from onnxprune.report.section import Section, Table

TOP_REASONS = 5
ENERGY = "an estimate after Horowitz, ISSCC 2014"
ENERGIES = ("energy, measured", "estimate")
LOCKED_NAMES = 3
HEADERS = {
    "cosine": "cosine",
    "centred_cosine": "about the mean",
    "log_odds_cosine": "log odds",
    "sqnr_db": "SQNR",
    "max_abs": "max error",
    "agreement": "top-1 agreement",
}
CONTRACT = ("cosine", "sqnr_db", "max_abs", "agreement")
"""Figures that a table of outputs always has."""
OF_IDS = ("agreement",)
"""What says something of an output of ids; their cosine is a number too, which is in the JSON alone."""


def sections(report: Report) -> list[Section]:
    """Return the sections that have something to say, in reading order."""
    makers = (
        *(
            _verdict,
            _gates,
            _cost,
            facts.model,
            target_section.target,
            facts.collected,
            changes.changes,
            explained.explained,
            pipeline.steps,
            branch_section.dropped,
            _groups,
            branch_section.branches,
            thin.sparsity,
            thin.factors,
            _compensation,
            walk_section.walk,
            _sensitivity,
            _curve,
            _layers,
        ),
        *(
            _parity,
            decision_section.decisions,
            pipeline.layers,
            pipeline.robustness,
            _latency,
            pipeline.grid,
            _locks,
            why.reasons,
            _ending,
        ),
    )
    return [part for make in makers for part in make(report) if part.lines or part.table]


def _verdict(report: Report) -> Iterator[Section]:
    found = report.details.get("verdict")
    if found:
        yield Section("", (" ".join([f"Verdict: {found['status']}.", *found["reasons"]]),), name="verdict")


def _gates(report: Report) -> Iterator[Section]:
    """Show every limit, what was found, and whether it was kept."""
    found = report.details.get("gates")
    if found:
        rows = tuple(
            (
                gate["name"].replace("_", "-"),
                "kept" if gate["held"] else "not kept",
                f"{gate['limit']:g}",
                "-" if gate["value"] is None else figures.beside(gate["value"], gate["limit"]),
            )
            for gate in found
        )
        table = Table(("gate", "outcome", "limit", "found"), rows, numbers=2)
        yield Section("Gates", table=table, detail=True)


def _cost(report: Report) -> Iterator[Section]:
    before, after = report.input, report.output
    if before is None:
        return
    if after is None:
        facts = f"{figures.count(before.params)} parameters, {figures.count(before.macs)} MACs"
        lines = [f"{before.path or 'model'}: {facts}, {figures.size(before.bytes)}"]
        taken = report.details.get("footprint")
        if taken:
            peak = figures.size(taken["before"]["activation_bytes"])
            energy = figures.joules(taken["before"]["joules"])
            lines.append(f"One sample: {peak} of activations at the peak, about {energy} ({ENERGY}).")
        yield Section("", tuple(lines))
        return
    rows = [
        _cost_row("parameters", before.params, after.params),
        _cost_row("MACs", before.macs, after.macs),
        _cost_row("file", before.bytes, after.bytes, is_size=True),
    ]
    taken = report.details.get("footprint")
    if taken:
        first, second = taken["before"], taken["after"]
        rows.append(_cost_row("activations", first["activation_bytes"], second["activation_bytes"], is_size=True))
        energies = (figures.joules(side["joules"]) for side in (first, second))
        rows.append(("energy (estimate)", *energies, figures.share(second["joules"], first["joules"])))
    rows += _measured_energy(report)
    title = f"{before.path or 'model'} -> {after.path or 'model'}"
    yield Section(title, table=Table(("", "before", "after", "left"), tuple(rows)), picture="cost")


def _measured_energy(report: Report) -> list[tuple[str, ...]]:
    """Return the row of energies that were measured beside times; none where they were not."""
    found = [values.get("joules") for values in report.latency.values() if isinstance(values, dict)]
    known = [value for value in found if value is not None]
    if len(found) != 2 or len(known) != 2:
        return []
    return [("energy (measured)", *map(figures.joules, known), figures.share(known[1], known[0]))]


def _cost_row(name: str, before: float | None, after: float | None, is_size: bool = False) -> tuple[str, ...]:
    write = figures.size if is_size else figures.count
    return (name, write(before), write(after), figures.share(after, before))


def _groups(report: Report) -> Iterator[Section]:
    groups = [group for group in report.groups if not group.locked]
    if not groups:
        return
    chosen = [group for group in groups if group.kept is not None]
    open_ones = [group for group in chosen if group.details.get("active", True) or group.kept != group.size]
    if not chosen:
        title = f"What can be pruned: {_many(len(groups), 'group')}"
        yield Section(title, table=_inspect_table(groups), picture="widths")
        return
    touched = [group for group in chosen if group.kept is not None and group.kept < group.size]
    removed = sum(group.size - (group.kept or 0) for group in touched)
    total = sum(group.size for group in open_ones)
    line = f"Removed {removed} of {total} channels, in {len(touched)} of {_many(len(open_ones), 'group')}."
    yield Section("", (line, *_rounding(report)))
    rows = tuple((g.name, g.kind, str(g.size), str(g.kept), g.reason or "") for g in chosen)
    table = Table(("group", "kind", "size", "kept", "note"), rows, numbers=2)
    yield Section("Groups", table=table, detail=True, picture="widths")


def _rounding(report: Report) -> Iterator[str]:
    """Say which widths were kept, and what for."""
    found = report.details.get("widths")
    if found:
        here = f" (here {found['here']})" if found["target"] == "any CPU" else ""
        yield f"Widths are {found['widths']}, for {found['target']}{here} in {found['precision']}."


def _compensation(report: Report) -> Iterator[Section]:
    """Errors are shares of the variance of each layer's output, on held-out samples."""
    done = report.details.get("compensation")
    if not done:
        return
    layers = [layer for layer in done["layers"] if layer["before"] is not None and layer["after"] is not None]
    used = [layer for layer in layers if layer["used"]]
    lines = [f"Refitted {len(used)} of {_many(len(done['layers']), 'layer')} on {_many(done['samples'], 'sample')}"]
    if used:
        before, after = (median(layer[when] for layer in used) for when in ("before", "after"))
        lines[0] += f": median error {figures.figure(before)} before, {figures.figure(after)} after"
    if "distance" in done:
        distance = {when: figures.figure(done["distance"][when]) for when in ("before", "after")}
        lines.append(
            f"Gradient steps: distance to the original {distance['before']} before, {distance['after']} after."
        )
        lines += [done["distance"]["outlook"]] if done["distance"].get("outlook") else []
    yield Section("", (f"{lines[0]}.", *lines[1:]))
    rows = tuple(
        (
            layer["name"],
            layer["op_type"],
            figures.figure(layer["before"]),
            figures.figure(layer["after"]),
            layer["note"] or ("" if layer["used"] else "not better, left as it was"),
        )
        for layer in layers
    )
    table = Table(("layer", "operator", "before", "after", "note"), rows, 2)
    title = "Errors of layers, as a share of the variance of what they give"
    yield Section(title, table=table, detail=True, picture="errors")


def _sensitivity(report: Report) -> Iterator[Section]:
    rows = report.details.get("sensitivity")
    if not rows:
        return
    ratios = [key for key in rows[0] if key.startswith("error_at_")]
    headers = ("group", "kind", "size", "saves", *(f"{float(key.removeprefix('error_at_')):.0%}" for key in ratios))
    cells = [
        (
            *(row["group"], row["kind"], str(row["size"]), _percent(row["macs_saved_at_half"])),
            *(f"{row[key]:.3g}" for key in ratios),
        )
        for row in rows
    ]
    title = f"Error of the outputs with a share of one group gone, on {_many(report.details['samples'], 'sample')}"
    yield Section(f"{title}; saves: MACs at half", table=Table(headers, tuple(cells), 2), picture="sensitivity")


def _curve(report: Report) -> Iterator[Section]:
    """The candidates of a search, and those that no other one beats in both size and closeness."""
    curve = report.details.get("curve")
    if not curve:
        return
    names = ("macs", "params", "latency", "cosine", "agreement", "drop")
    shown = [name for name in names if any(point.get(name) is not None for point in curve)]
    headers = ("asked", *shown, "bound", "best of its size")
    rows = []
    for point in sorted(curve, key=lambda point: -point["asked"]):
        cells = (figures.figure(point.get(name)) for name in shown)
        kept, pareto = "kept" if point["kept"] else "missed", "yes" if point["pareto"] else ""
        rows.append((f"{point['asked']:.4g}", *cells, kept, pareto))
    yield Section("Candidates: what is left, and how near it is", table=Table(headers, tuple(rows)), picture="curve")


def _inspect_table(groups: Sequence[GroupLine]) -> Table:
    rows = []
    for group in groups:
        exact = "exact" if group.details.get("exact") else "not exact"
        active = "yes" if group.details.get("active") else "no"
        sites, macs = group.details.get("sites", []), group.details.get("macs")
        writers = max(1, len(group.details.get("nodes", [])))
        row = (group.name, group.kind, exact, active)
        rows.append((*row, *(str(number) for number in (group.size, writers, len(sites))), figures.count(macs)))
    headers = ("group", "kind", "parity", "active", "size", "writers", "sites", "MACs")
    return Table(headers, tuple(rows), numbers=4)


def _layers(report: Report) -> Iterator[Section]:
    layers = report.details.get("layers", [])
    if not layers:
        return
    how = report.details.get("quantization", {})
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in how.items())
    computing = [layer for layer in layers if layer.get("computes", True)]  # what lies between follows them
    kept = [layer["name"] for layer in computing if layer["precision"] == "float"]
    lines = [f"Quantized {len(computing) - len(kept)} of {_many(len(computing), 'layer')}: {told}."]
    if kept:
        more = f" and {len(kept) - LOCKED_NAMES} more" if len(kept) > LOCKED_NAMES else ""
        lines.append(f"In float: {', '.join(kept[:LOCKED_NAMES])}{more}.")
    yield Section("", tuple(lines))
    rows = [
        (
            layer["name"],
            layer["operator"],
            layer["precision"],
            figures.decibels(layer["sqnr_db"]),
            figures.decibels(layer["alone_sqnr_db"]),
        )
        for layer in layers
    ]
    headers = ("layer", "operator", "precision", "SQNR", "outputs if alone")
    yield Section("Noise of the layers", table=Table(headers, tuple(rows), 3), detail=True, picture="noise")


def _are_ids(values: Mapping[str, object]) -> bool:
    return values.get("kind") == "labels" and values.get("agreement") is not None


def _parity(report: Report) -> Iterator[Section]:
    if report.parity:
        names = {
            "cosine": figures.figure,
            "centred_cosine": figures.figure,
            "log_odds_cosine": figures.figure,
            "sqnr_db": figures.decibels,
            "max_abs": figures.error,
            "agreement": _percent,
        }
        known = [name for name in names if name in CONTRACT or any((v or {}).get(name) for v in report.parity.values())]
        noise = report.details.get("self_noise", {})
        rows = []
        for output, values in report.parity.items():
            said = {} if values is None else {k: v for k, v in values.items() if k in OF_IDS or not _are_ids(values)}
            cells = [names[name](said.get(name)) for name in known]
            rows.append((output, *cells, figures.decibels((noise.get(output) or {}).get("sqnr_db"))))
        headers = ("output", *(HEADERS[name] for name in known), "self noise")
        keep = len(headers) if noise else -1
        table = Table(headers[:keep], tuple(row[:keep] for row in rows))
        yield Section(f"Outputs against the original, on {report.details.get('inputs', 'inputs')}", table=table)
    yield Section("Checks", (*report.details.get("verdicts", ()), *_evaluation(report)))


def _evaluation(report: Report) -> Iterator[str]:
    values = report.details.get("evaluation")
    if values:
        yield f"Evaluated: {values['before']:.6g} before, {values['after']:.6g} after, a drop of {values['drop']:.4g}."


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _latency(report: Report) -> Iterator[Section]:
    times = {name: values for name, values in report.latency.items() if isinstance(values, dict)}
    if not times:
        return
    first = next(iter(times.values()))["median_ms"]
    measured, rows = any("joules" in values for values in times.values()), list[tuple[str, ...]]()
    estimates = report.details.get("energy", {}).get("estimates", {})
    for name, values in times.items():
        spread = f"{values['p10_ms']:.3g} - {values['p90_ms']:.3g} ms"
        ratio = values["median_ms"] / first if first else 1.0
        row = (name, figures.milliseconds(values["median_ms"]), spread, f"{ratio:.2f}", str(values["runs"]))
        rows.append((*row, *(_energies(values, estimates.get(name)) if measured else ())))
    headers = ("model", "median", "p10 - p90", "of the first", "runs", *(ENERGIES if measured else ()))
    inputs = report.details.get("latency_inputs") or report.details.get("inputs", "in turns")
    promise = report.details.get("latency_share")
    lines = (
        (f"Asked for {promise['asked']:.3g} of the latency, {promise['measured']:.3f} when the machine was quietest.",)
        if promise
        else ()
    )
    yield Section(f"Latency, {inputs}", lines, Table(headers, tuple(rows)), picture="times")


def _energies(values: dict[str, float], estimate: float | None) -> tuple[str, str]:
    found = (values.get("joules"), estimate)
    one, two = ("-" if joules is None else figures.joules(joules) for joules in found)
    return one, two


def _locks(report: Report) -> Iterator[Section]:
    locks = [group for group in report.groups if group.locked]
    if not locks:
        return
    if report.command == "inspect":
        rows = tuple((lock.name, str(lock.size), lock.reason or "") for lock in locks)
        yield Section(
            f"What is locked, and why: {_many(len(locks), 'axis', 'axes')}",
            table=Table(("axis", "size", "reason"), rows, 9),
        )
        return
    lines = _top_reasons([lock for lock in locks if lock.size > 1])
    yield Section("Left alone (tensor:axis)", lines, name="left alone")


def _top_reasons(locks: Sequence[GroupLine]) -> tuple[str, ...]:
    """Return a line for each of the reasons that hold most; reasons that differ in names only are one."""
    kinds: dict[str, list[GroupLine]] = {}
    for lock in locks:
        kinds.setdefault(re.sub(r"'[^']*'", "''", lock.reason or "unknown"), []).append(lock)
    ordered = sorted(kinds.values(), key=lambda group: -sum(lock.size for lock in group))
    lines = []
    for group in ordered[:TOP_REASONS]:
        names = list(dict.fromkeys(lock.name for lock in group))
        more = f" and {len(names) - LOCKED_NAMES} more" if len(names) > LOCKED_NAMES else ""
        lines.append(f"{', '.join(names[:LOCKED_NAMES])}{more}: {group[0].reason}")
    rest = len(ordered) - TOP_REASONS
    return (*lines, f"{_many(rest, 'more reason')}: see onnxprune inspect") if rest > 0 else tuple(lines)


def _ending(report: Report) -> Iterator[Section]:
    yield Section("Next", tuple(report.details.get("next", ())))
    lines = [f"{stage} {seconds:.2f} s" for stage, seconds in report.seconds.items()]
    yield Section("Time", (", ".join(lines),) if lines else (), detail=True)


def _many(number: int, one: str, more: str | None = None) -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
