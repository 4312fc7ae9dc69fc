"""The same model, data and options give the same bytes, however many threads and cores there are."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.networks import convnet, store

COMMANDS = {
    "a refit": "prune --macs 0.4 --compensate lstsq",
    "a refit of scattered zeros": "sparsify --sparsity 0.5",
    "integers": "quantize --mode static",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SETTINGS = {
    "one thread": (["--threads", "1"], {"OMP_NUM_THREADS": "1"}, False),
    "two threads": (["--threads", "2"], {"OMP_NUM_THREADS": "2"}, False),
    "four threads of BLAS": (["--threads", "1"], {"OMP_NUM_THREADS": "4"}, False),
    "one core, nothing said": ([], {}, True),
}


def on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
@pytest.mark.parametrize("case", COMMANDS)
def test_the_bytes_are_the_same_on_any_number_of_threads(tmp_path: Path, case: str) -> None:
    """The refit has Gram matrices of 576 features and the score inverts them: threads would add in another order."""
    model = store(convnet(width=64), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((16, 3, 12, 12)).astype(np.float32))
    name, *asked = COMMANDS[case].split()
    command = [sys.executable, "-m", "onnxprune.cli", name, str(model), "--data", str(tmp_path / "x.npy"), *asked]
    found = {}
    for setting, (options, variables, one_core) in SETTINGS.items():
        output = tmp_path / f"{setting}.onnx"
        environment = {k: v for k, v in os.environ.items() if k not in THREADS} | variables | {"ONNXPRUNE_CACHE": "off"}
        subprocess.run(
            [*command, "--no-provenance", "-q", "-o", str(output), *options],
            env=environment,
            check=True,
            capture_output=True,
            preexec_fn=on_one_core if one_core else None,
        )
        found[setting] = output.read_bytes()
    first = found.pop("one thread")
    assert first != model.read_bytes()
    assert [setting for setting, content in found.items() if content != first] == []
