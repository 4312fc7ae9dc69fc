"""What onnxruntime itself allocates for activations in one run: python -m tests.hardware.arena_of MODEL ..

It says so when its arena grows: after a run that gave everything back, the next one begins with the block that holds
all buffers. Every model needs a process of its own, as the arena is that of the process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

_BLOCK = re.compile(r"Extending BFCArena.*num_bytes: (\d+)")
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def arena_bytes(model: Path) -> int:
    """Return the bytes of the block that onnxruntime allocates for the activations of one sample; 0: none."""
    command = [sys.executable, "-m", "tests.hardware.arena_of", str(model)]
    folder = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    second = done.stderr.partition("RUN 1")[2].partition("RUN 2")[0]
    found = _BLOCK.search(second)
    return int(found[1]) if found else 0


def main(path: str) -> None:
    """Run a model twice, with one sample, after the fusions that do not depend on the CPU."""
    import onnx
    import onnxruntime as ort

    ort.set_default_logger_severity(1)
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.use_env_allocators", "1")
    for value in onnx.load(path, load_external_data=False).graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                options.add_free_dimension_override_by_name(dim.dim_param, 1)
    session = ort.InferenceSession(path, options)
    feeds = {
        port.name: np.zeros([size if isinstance(size, int) else 1 for size in port.shape], _TYPES[port.type])
        for port in session.get_inputs()
    }
    run = ort.RunOptions()
    run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    for number in range(2):
        print(f"RUN {number}", file=sys.stderr, flush=True)
        session.run(None, feeds, run)
    print("RUN 2", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
