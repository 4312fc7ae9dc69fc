"""Times out of what the benchmark tools of runtimes print or write.

Known: `onnxruntime_perf_test` (text, and profiles of onnxruntime), `trtexec` (text, and --exportTimes), `benchmark_app`
of OpenVINO (text, and its statistics as JSON), `qnn-net-run` through `qnn-profile-viewer` (text and CSV); else plain
times, one or more a line, in ms unless another unit stands behind them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnxprune.errors import DataError

UNITS = {"s": 1e3, "sec": 1e3, "seconds": 1e3, "ms": 1.0, "msec": 1.0, "us": 1e-3, "usec": 1e-3, "ns": 1e-6}
NUMBER = r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
TIME = re.compile(rf"(?<![\w.\-]){NUMBER}\s*(seconds|usec|msec|sec|ms|us|ns|s)?(?![\w.%:/])")
COMMA = re.compile(r"\d,$")
NOTHING = "no time was found in it; a time is a number with a decimal point, in ms unless s, us or ns stand behind it"


@dataclass(frozen=True)
class ToolTimes:
    """Times of one model in ms: of every run, or what a tool says about them.

    tool: what made them. median_ms: the time of a run. low_ms, high_ms: where most runs lie between.
    """

    tool: str
    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    times_ms: tuple[float, ...] = field(default=(), repr=False)

    @staticmethod
    def of(tool: str, times_ms: Sequence[float]) -> ToolTimes:
        """Return what single runs say."""
        ordered = sorted(times_ms)
        at = [ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9)]
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        return ToolTimes(tool, median, at[0], at[1], len(ordered), tuple(times_ms))


def read_tool(text: str) -> ToolTimes | None:
    """Return the times that a tool printed or wrote; None where the text is of none that is known.

    Raises:
        DataError: it is of one, and lacks the times or has impossible ones.
    """
    try:
        found = _read(text)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{NOTHING} ({error})") from error
    return None if found is None else _checked(found)


def _read(text: str) -> ToolTimes | None:
    found = _of_json(text) if text.lstrip()[:1] in ("[", "{") else None
    if found is not None:
        return found
    return next((read(text) for mark, read in _TEXTS if re.search(mark, text)), None)


def read_times(text: str) -> ToolTimes:
    """Return the times of one model: of a tool that is known, or plain ones.

    Raises:
        DataError: there are none.
    """
    found = read_tool(text)
    if found is None:
        found = _checked(
            ToolTimes.of("times", [time for line in text.splitlines() for time in plain_times(line)] or [0])
        )
    return found


def plain_times(line: str) -> list[float]:
    """Return the times of a line in ms: numbers with a unit, or all numbers of a line that has nothing but numbers.

    `1,5 ms` is none: its comma may stand for a decimal point or between thousands.
    """
    found = list(TIME.finditer(line))
    if any(match[2] for match in found):
        clear = [match for match in found if match[2] and not COMMA.search(line, 0, match.start())]
        return [float(match[1]) * UNITS[match[2]] for match in clear]
    rest = TIME.sub("", line).strip(" \t,;[]()")
    return [float(match[1]) for match in found] if not re.sub(r"[\s,;]", "", rest) else []


def _checked(found: ToolTimes) -> ToolTimes:
    values = (found.median_ms, found.low_ms, found.high_ms, *found.times_ms)
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise DataError(NOTHING)
    return found


def _of_json(text: str) -> ToolTimes | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and isinstance(found.get("execution_results"), dict):
        return _openvino_json(found["execution_results"])
    if isinstance(found, dict) and isinstance(found.get("traceEvents"), list):
        found = found["traceEvents"]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        return None
    if any("latencyMs" in item for item in found):
        return ToolTimes.of("trtexec", [float(item["latencyMs"]) for item in found if "latencyMs" in item])
    runs = [float(item.get("dur", 0)) / 1e3 for item in found if item.get("name") == "model_run"]
    return ToolTimes.of("onnxruntime profile", runs) if runs else None


def _openvino_json(results: Mapping[str, object]) -> ToolTimes | None:
    """Read the statistics of benchmark_app: names have differed ("latency_median", "latency_median (ms)")."""
    named = {re.sub(r"[^a-z]+", "_", name.lower()).removesuffix("_ms_"): value for name, value in results.items()}

    def value(*words: str) -> float | None:
        found = (named.get(f"latency_{word}", named.get(f"{word}_latency")) for word in words)
        return next((float(str(item)) for item in found if item is not None), None)

    median = value("median", "average", "avg")
    if median is None:
        return None
    runs = int(float(str(named.get("iterations_num", 1))))
    return ToolTimes("benchmark_app", median, value("min") or median, value("max") or median, runs)


def _perf_test(text: str) -> ToolTimes:
    def value(name: str) -> float | None:
        found = re.search(rf"{name}:?\s*{NUMBER}\s*(s|ms)\b", text)
        return float(found[1]) * UNITS[found[2]] if found else None

    average = value("Average inference time cost")
    median = value("P50 Latency") or average
    if median is None:
        raise DataError("the output of onnxruntime_perf_test has no average and no P50 latency; let it run to its end.")
    runs = re.search(r"Total inference requests:\s*(\d+)", text) or re.search(r"Runs:\s*(\d+)", text)
    low, high = value("Min Latency") or median, value("P90 Latency") or median
    return ToolTimes("onnxruntime_perf_test", median, low, high, int(runs[1]) if runs else 1)


def _trtexec(text: str) -> ToolTimes:
    found = re.search(r"(?<!H2D )(?<!D2H )Latency: (min = .*)", text) or re.search(
        r"GPU Compute Time: (min = .*)", text
    )
    if found is None:
        raise DataError("the output of trtexec has no line of latencies; let it run to its end.")
    values = {name: float(value) for name, value in re.findall(rf"([\w()%]+) = {NUMBER} ms", found[1])}
    if "median" not in values:
        raise DataError("the output of trtexec has no median latency.")
    high = values.get("percentile(90%)", values.get("max", values["median"]))
    runs = re.search(r"\b(\d+) queries over", text)
    return ToolTimes(
        "trtexec", values["median"], values.get("min", values["median"]), high, int(runs[1]) if runs else 1
    )


def _benchmark_app(text: str) -> ToolTimes:
    def value(name: str) -> float | None:
        found = re.search(rf"\b{name}:\s*{NUMBER} ms", text)
        return float(found[1]) if found else None

    median = value("Median") or value("Average") or value("AVG")
    if median is None:
        raise DataError("the output of benchmark_app has no median latency; let it run to its end.")
    runs = re.search(r"Count:\s*(\d+) iterations", text)
    return ToolTimes(
        "benchmark_app", median, value("Min") or median, value("Max") or median, int(runs[1]) if runs else 1
    )


def _qnn(text: str) -> ToolTimes:
    """Read what qnn-profile-viewer makes of a log: the time of NetRun, average, minimum, maximum."""
    found = {"average": 0.0, "min": 0.0, "max": 0.0}
    for part in re.split(r"(?=Execute Stats \()", text):
        kind = re.match(r"Execute Stats \((\w+)\)", part)
        time = re.search(rf"NetRun:\s*{NUMBER}\s*us", part)
        if kind and time and kind[1].lower() in found:
            found[kind[1].lower()] = float(time[1]) / 1e3
    if not found["average"]:
        raise DataError("the profile of qnn-net-run has no average time of NetRun; run it through qnn-profile-viewer.")
    average = found["average"]
    return ToolTimes("qnn-net-run", average, found["min"] or average, found["max"] or average, 1)


def _qnn_csv(text: str) -> ToolTimes:
    lines = [line.split(",") for line in text.splitlines()]
    head = next((line for line in lines if "Message" in line), [])
    places = [head.index(name) if name in head else -1 for name in ("Message", "Time", "Unit of Measurement")]
    times = []
    for line in lines:
        if min(places) >= 0 and len(line) > max(places) and line[places[0]].strip() == "EXECUTE" and "NETRUN" in line:
            times.append(float(line[places[1]]) * UNITS.get(line[places[2]].strip().lower(), 1e-3))
    if not times:
        raise DataError("the profile of qnn-net-run has no row EXECUTE of NETRUN.")
    return ToolTimes.of("qnn-net-run", times)


_TEXTS: tuple[tuple[str, Callable[[str], ToolTimes]], ...] = (
    (r"(Average inference time cost|Total inference time cost|P50 Latency)", _perf_test),
    (r"(\[I\] .*Latency: min = |&&&& (RUNNING|PASSED|FAILED) TensorRT)", _trtexec),
    (r"(\[Step \d+/\d+\]|\[ INFO \] Latency)", _benchmark_app),
    (r"Execute Stats \(", _qnn),
    (r"Msg Timestamp,Message,Time,Unit of Measurement", _qnn_csv),
)
"""What tells the text of a tool, and how it is read."""
