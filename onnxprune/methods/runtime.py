"""How a model is run: the part of it that methods see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.option import LEAST_BYTES, option


@dataclass(frozen=True)
class Runtime:
    """How a model is run."""

    section: ClassVar[str] = "Inputs, and how models are run"

    threads: int = option(0, "Threads of onnxruntime [default: all].", metavar="N", least=0)
    provider: str | None = option(None, "Execution provider of onnxruntime [default: CPU].", metavar="NAME")
    memory: int | None = option(
        None,
        "What statistics of --data, and then the refit, may take, as in 4GB [default: 2GB, 4GB].",
        spelt="bytes",
        least=LEAST_BYTES,
    )
    device: str | None = option(
        None,
        "Latencies are those of a board with Python and onnxruntime: ssh://USER@HOST[:PORT][?python=PATH].",
        metavar="PLACE",
    )
    latency_command: str | None = option(
        None,
        "Latencies are those that this command prints, in ms: CMD {model}, or CMD {models} for many, a line each.",
        metavar="CMD",
    )
    latency_timeout: float | None = option(
        None, "Seconds that such a call may take [default: 600].", metavar="S", least=0, open="<"
    )
    cluster: str | None = option(
        None,
        "Workers that share the work: tcp://HOST:8786 of a Dask scheduler, or local:N for N processes here [default: "
        "none; see docs/cluster.md].",
        metavar="ADDRESS",
    )
