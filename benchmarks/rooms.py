"""Follow one prune with a profiler: which rooms of the package the model passes through, and how often it climbs up.

python -m benchmarks.rooms [MODEL] [--ratio 0.4]

A room is a folder of the package (`methods/factors` is one of its own) or a file beside the folders. The model passes a
room where a function of it is called with a model, its view or its channels. A call from a room to another one that the
layers of tests/test_layers.py put above it is a climb: a callback, a result that is asked for again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

import onnx
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:  # run as a file
    sys.path.insert(0, str(ROOT))

from onnxprune.channels.analyse import Channels
from onnxprune.cli.group import cli
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from tests.test_layers import LEVEL

MODELS = (onnx.ModelProto, Model, View, Channels)
PACKAGE = f"{ROOT / 'onnxprune'}/"


def room(frame: FrameType | None) -> str | None:
    """Return the room of the code that runs; None outside of the package."""
    file = frame.f_code.co_filename if frame is not None else ""
    if not file.startswith(PACKAGE):
        return None
    folder, _, name = file.removeprefix(PACKAGE).rpartition("/")
    return folder or name.removesuffix(".py")


class Walk:
    """What a profiler sees: rooms, and calls from one to another, with the model among the arguments or without."""

    def __init__(self) -> None:
        self.rooms: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.carried: Counter[tuple[str, str]] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        here = room(frame) if event == "call" else None
        if here is None or frame.f_code.co_name == "<module>":
            return
        if carries(frame):
            self.rooms[here] += 1
        before = frame.f_back
        while before is not None and room(before) is None:
            before = before.f_back
        there = room(before)
        if there is not None and there != here:
            self.calls[there, here] += 1
            self.carried[there, here] += carries(frame)


def climbs(calls: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pairs of rooms, of which the first calls the second, which is above it."""
    return sorted(pair for pair, count in calls.items() if count and _level(pair[1]) < _level(pair[0]))


def carries(frame: FrameType) -> bool:
    """Tell whether a function was called with a model."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return any(isinstance(frame.f_locals.get(name), MODELS) for name in names)


def _level(name: str) -> int:
    return LEVEL.get(name.partition("/")[0], -1)


def main() -> None:
    """Print the rooms of one prune from the command line, and its climbs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(ROOT / "models" / "trained" / "fm_resnet20" / "model.onnx"))
    parser.add_argument("--ratio", default="0.4")
    given = parser.parse_args()
    walk = Walk()
    with tempfile.TemporaryDirectory() as folder:
        words = [given.model, "--ratio", given.ratio, "-o", f"{folder}/out.onnx", "--threads", "1", "-q"]
        sys.setprofile(walk)
        result = CliRunner().invoke(cli, words)
        sys.setprofile(None)
    if result.exit_code:
        raise SystemExit(result.stderr)
    found = climbs(walk.carried)
    print(f"the model passes {len(walk.rooms)} rooms and climbs {len(found)} times")
    print(f"all calls: {len(walk.calls)} pairs of rooms, {len(climbs(walk.calls))} climbs")
    for name, calls in walk.rooms.most_common():
        print(f"{name:28} {calls:8} calls with the model")
    for lower, upper in climbs(walk.calls):
        pair = lower, upper
        print(f"climb: {lower} -> {upper} ({walk.calls[pair]} calls, {walk.carried[pair]} with the model)")


if __name__ == "__main__":
    main()
