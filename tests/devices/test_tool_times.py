"""What benchmark tools print is read as they print it."""

import json
from pathlib import Path

import pytest

from onnxprune.devices.tool_times import plain_times, read_times, read_tool
from onnxprune.errors import DataError
from onnxprune.evidence.elsewhere_bench import timing_of_file

PERF_TEST = """\
Disabling intra-op thread spinning between runs
Setting intra_op_num_threads to 2
Session creation time cost: 0.0213 s
First inference time cost: 9 ms
Total inference time cost: 1.21459 s
Total inference requests: 100
Average inference time cost: 12.1459 ms
Total inference run time: 1.21466 s
Number of inferences per second: 82.3274
Avg CPU usage: 98 %
Peak working set size: 53702656 bytes
Avg CPU usage:98
Peak working set size:53702656
Runs:100
Min Latency: 0.0113251 s
Max Latency: 0.0160412 s
P50 Latency: 0.0120118 s
P90 Latency: 0.0130274 s
P95 Latency: 0.0136012 s
P99 Latency: 0.0160412 s
P999 Latency: 0.0160412 s
"""
TRTEXEC = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=model.onnx --fp16
[11/28/2026-10:00:00] [I] === Model Options ===
[11/28/2026-10:00:09] [I] Average on 10 runs - GPU latency: 1.2311 ms - Host latency: 1.4122 ms (enqueue 0.5 ms)
[11/28/2026-10:00:12] [I] === Trace details ===
[11/28/2026-10:00:12] [I] Timing trace has 2411 queries over 3.00301 s
[11/28/2026-10:00:12] [I] === Performance summary ===
[11/28/2026-10:00:12] [I] Throughput: 802.86 qps
[11/28/2026-10:00:12] [I] Latency: min = 1.38672 ms, max = 2.04492 ms, mean = 1.41653 ms, median = 1.41211 ms, \
percentile(90%) = 1.43506 ms, percentile(95%) = 1.4458 ms, percentile(99%) = 1.49219 ms
[11/28/2026-10:00:12] [I] Enqueue Time: min = 0.42 ms, max = 0.9 ms, mean = 0.5 ms, median = 0.49 ms
[11/28/2026-10:00:12] [I] H2D Latency: min = 0.15 ms, max = 0.3 ms, mean = 0.16 ms, median = 0.16 ms
[11/28/2026-10:00:12] [I] GPU Compute Time: min = 1.20996 ms, max = 1.87 ms, mean = 1.2389 ms, median = 1.23499 ms
[11/28/2026-10:00:12] [I] D2H Latency: min = 0.004 ms, max = 0.02 ms, mean = 0.005 ms, median = 0.005 ms
&&&& PASSED TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=model.onnx --fp16
"""
EXPORTED = json.dumps(
    [
        {"startInMs": 0.1, "startComputeMs": 0.2, "endComputeMs": 1.4, "inMs": 0.1, "computeMs": 1.2, "latencyMs": 1.5},
        {"startInMs": 2.1, "startComputeMs": 2.2, "endComputeMs": 3.4, "inMs": 0.1, "computeMs": 1.2, "latencyMs": 1.4},
        {"startInMs": 4.1, "startComputeMs": 4.2, "endComputeMs": 5.4, "inMs": 0.1, "computeMs": 1.2, "latencyMs": 1.6},
    ]
)
BENCHMARK_APP = """\
[Step 1/11] Parsing and validating input arguments
[ INFO ] Parsing input parameters
[Step 10/11] Measuring performance (Start inference synchronously, limits: 3000 ms duration)
[ INFO ] First inference took 6.21 ms
[Step 11/11] Dumping statistics report
[ INFO ] Execution Devices:['CPU']
[ INFO ] Count:            601 iterations
[ INFO ] Duration:         3002.13 ms
[ INFO ] Latency:
[ INFO ]    Median:        4.92 ms
[ INFO ]    Average:       4.99 ms
[ INFO ]    Min:           4.70 ms
[ INFO ]    Max:           9.31 ms
[ INFO ] Throughput:   200.19 FPS
"""
OPENVINO = json.dumps(
    {
        "cmd_options": {"m": "model.xml", "hint": "latency"},
        "execution_results": {
            "iterations_num": "601",
            "latency_median": "4.92",
            "latency_average": "4.99",
            "latency_min": "4.70",
            "latency_max": "9.31",
            "throughput": "200.19",
        },
    }
)
QNN = """\
Input Log File Location: output/qnn-profiling-data.log
Log File Created: Sat Nov 28 10:00:00 2026
Time Scale: 1e-06
Epoch Timestamp: 1795860000000000 Steady Clock Timestamp: 1000
Generated using: qnn-profile-viewer v2.20.0

Init Stats:
-----------
    NetRun:  96303 us

Execute Stats (Average):
------------------------
Total Inference Time:
---------------------
    NetRun: 3050 us
    Backend (RPC (execute) time): 2900 us
    Backend (Accelerator (execute) time): 2500 us

Execute Stats (Min):
------------------------
Total Inference Time:
---------------------
    NetRun: 2950 us

Execute Stats (Max):
------------------------
Total Inference Time:
---------------------
    NetRun: 4100 us
"""
QNN_CSV = """\
Generated using: qnn-profile-viewer
Msg Timestamp,Message,Time,Unit of Measurement,Timing Source,Event Level,Event Identifier
100,INIT,96303,US,NETRUN,ROOT,NetRun IP
200,EXECUTE,3100,US,NETRUN,ROOT,NetRun IP
201,EXECUTE,2500,US,BACKEND,ROOT,Accelerator (execute) time
300,EXECUTE,3000,US,NETRUN,ROOT,NetRun IP
"""
PROFILE = json.dumps(
    [
        {"cat": "Session", "name": "model_loading_uri", "dur": 9000, "ts": 1, "ph": "X", "args": {}},
        {"cat": "Session", "name": "model_run", "dur": 2100, "ts": 10, "ph": "X", "args": {}},
        {"cat": "Node", "name": "conv_kernel_time", "dur": 900, "ts": 11, "ph": "X", "args": {"op_name": "Conv"}},
        {"cat": "Session", "name": "model_run", "dur": 1900, "ts": 20, "ph": "X", "args": {}},
    ]
)


@pytest.mark.parametrize(
    ("text", "tool", "median", "low", "runs"),
    [
        (PERF_TEST, "onnxruntime_perf_test", 12.0118, 11.3251, 100),
        ("\n".join(PERF_TEST.splitlines()[:7]), "onnxruntime_perf_test", 12.1459, 12.1459, 100),
        (TRTEXEC, "trtexec", 1.41211, 1.38672, 2411),
        (EXPORTED, "trtexec", 1.5, 1.4, 3),
        (BENCHMARK_APP, "benchmark_app", 4.92, 4.70, 601),
        (OPENVINO, "benchmark_app", 4.92, 4.70, 601),
        (QNN, "qnn-net-run", 3.05, 2.95, 1),
        (QNN_CSV, "qnn-net-run", 3.05, 3.0, 2),
        (PROFILE, "onnxruntime profile", 2.0, 1.9, 2),
    ],
)
def test_what_a_tool_says_is_read(text: str, tool: str, median: float, low: float, runs: int, tmp_path: Path) -> None:
    found = read_tool(text)
    assert found is not None
    assert (found.tool, found.runs) == (tool, runs)
    assert found.median_ms == pytest.approx(median)
    assert found.low_ms == pytest.approx(low)
    (tmp_path / "times.txt").write_text(text)
    assert timing_of_file(tmp_path / "times.txt").median_ms == pytest.approx(median)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("12.5", [12.5]),
        ("12.5 ms", [12.5]),
        ("1.2ms 1.3ms\n1.25ms", [1.2, 1.3, 1.25]),
        ("run took 1500 us", [1.5]),
        ("0.004 s", [4.0]),
        ("[1.5, 2.5]", [1.5, 2.5]),
        ("warming up 3 runs\nlatency: 7.25 ms", [7.25]),
        ("1.5e1", [15.0]),
        ("3 ms,4 ms", [3.0, 4.0]),
    ],
)
def test_plain_times_are_read_with_their_units(text: str, times: list[float]) -> None:
    assert read_times(text).times_ms == pytest.approx(tuple(times))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "version 1.2.3",
        "model-3.onnx loaded",
        "0 ms",
        "-5",
        "nan ms",
        "100 %",
        "{}",
        "[]",
        "12:30",
        "1,5 ms",
        "1.234,5 us",
        "took 12,345 ns",
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    with pytest.raises(DataError, match="no time was found"):
        read_times(text)


@pytest.mark.parametrize(
    "text",
    [
        "Total inference time cost: 1.2 s",
        "&&&& FAILED TensorRT.trtexec # trtexec --onnx=model.onnx",
        "[Step 1/11] Parsing and validating input arguments\n[ ERROR ] no model",
        "Execute Stats (Average):\n    Backend: 3 us",
        "Msg Timestamp,Message,Time,Unit of Measurement\n1,INIT,3,US,NETRUN",
    ],
)
def test_a_tool_that_did_not_finish_says_what_lacks(text: str) -> None:
    with pytest.raises(DataError):
        read_tool(text)


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "model_run", "dur": "soon"}]',
        '[{"latencyMs": [1.5]}]',
        '{"execution_results": {"latency_median": "n/a"}}',
        '{"execution_results": {"latency_median": 1.5, "iterations_num": Infinity}}',
        "Msg Timestamp,Message,Time,Unit of Measurement\n1,EXECUTE,soon,US,NETRUN",
    ],
)
def test_a_time_that_is_no_number_is_said_in_one_line(text: str) -> None:
    with pytest.raises(DataError, match="no time was found"):
        read_times(text)


def test_a_line_of_words_has_no_times() -> None:
    assert plain_times("loaded 3 models in 2 threads") == []
