"""Latency of models side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.evidence.latency import Timing, interleaved
from onnxprune.evidence.run_energy import joules_per_run
from onnxprune.graph.session import Feeds, Session, file_of, open_session
from onnxprune.hardware.rapl import energy_meter

if TYPE_CHECKING:
    from onnxprune.graph.model import Model, Source
    from onnxprune.graph.trace import Shape


def bench(
    models: Sequence[Source],
    *,
    batch: int = 1,
    runs: int = 50,
    warmup: int = 3,
    seconds: float = 20.0,
    threads: int = 0,
    provider: str | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    seed: int = 0,
    feeds: Feeds | None = None,
    tick: Callable[[], None] = lambda: None,
    device: str | None = None,
    latency_command: str | None = None,
    latency_timeout: float | None = None,
    energy: bool = True,
) -> dict[str, Timing]:
    """Return the latency of every model, measured in turns on the same inputs.

    Args:
        models: paths or models; inputs that two of them share get the same values.
        batch: size of the batch where it is dynamic.
        seconds: no new round starts after that time.
        feeds: inputs to use instead of random ones.
        device, latency_command: where they are timed instead of here: ssh://USER@HOST, or CMD {model}, for at most
            `latency_timeout` seconds a call. batch, runs, warmup and seconds are theirs to choose then.
        energy: measure the energy too, where the counters of the processor can be read.

    Returns:
        path (or "model 1", ..) -> timing, in the order given.

    Raises:
        ModelError: onnxruntime refuses a model.
        DataError: no inputs were found that a model runs on.
        DeviceError: the device or the command does not answer, or says no time.
    """
    from onnxprune.devices.watches import watch_of
    from onnxprune.graph.model import load

    watch = watch_of(device, latency_command, latency_timeout, threads, provider)
    if watch is not None:
        from onnxprune.evidence.elsewhere_bench import timed_there

        called: list[str] = []
        for number, source in enumerate(models, 1):
            called.append(_name(str(load(source).path or f"model {number}"), called))
        return dict(zip(called, timed_there(watch, models, feeds), strict=True))
    with ExitStack() as stack:
        calls: list[Callable[[], object]] = []
        names: list[str] = []
        for number, source in enumerate(models, 1):
            model = load(source)
            session = stack.enter_context(
                open_session(file_of(source) or model, spinning=True, threads=threads, provider=provider)
            )
            own = session.fit(feeds) if feeds is not None else _feeds(model, session, input_shapes, seed, batch)
            calls.append(partial(session.run, own))
            names.append(_name(str(model.path or f"model {number}"), names))
        timings = interleaved(calls, runs=runs, warmup=warmup, seconds=seconds, tick=tick)
        meter = energy_meter() if energy else None
        joules = joules_per_run(calls, meter) if meter is not None else None
        if joules is not None:
            timings = [replace(timing, joules=value) for timing, value in zip(timings, joules, strict=True)]
    return dict(zip(names, timings, strict=True))


def _feeds(model: Model, session: Session, input_shapes: Mapping[str, Shape] | None, seed: int, batch: int) -> Feeds:
    from onnxprune.evidence.inputs import random_inputs
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    view = View(model)
    return random_inputs(view, trace(view, dict(input_shapes or {})), session, seed=seed, batch=batch).sample(0)


def _name(name: str, taken: Sequence[str]) -> str:
    """Return the name, with a number if it is there already."""
    again = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({again + 1})" if again else name
