"""A board with Python and onnxruntime that is reached by ssh.

One connection a batch: models, inputs and a runner of one file go there as a tar archive on standard input, times come
back on standard output, and the shell there removes its folder whatever happens.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from onnxprune.devices.stopwatch import TIMEOUT_SECONDS, Finished, run
from onnxprune.errors import DeviceError, UsageError
from onnxprune.files.scratch import scratch_folder
from onnxprune.files.shown import one_line

RUNNER = Path(__file__).with_name("device_runner.py")
VARIABLE = "ONNXPRUNE_SSH"
"""Names the ssh command, with options: `ssh -F config -i key`."""
ANSWER_SECONDS = 10
RUNS, SECONDS = 200, 2.0
"""Of one batch on the device, in turns."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class DevicePlace:
    """Where a device is. python: its Python, which has onnxruntime."""

    host: str
    user: str = ""
    port: int | None = None
    python: str = "python3"

    def __str__(self) -> str:
        """Return it as it is spelled."""
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{self.host}{f':{self.port}' if self.port else ''}"


def read_place(text: str) -> DevicePlace:
    """Return the place that ssh://[USER@]HOST[:PORT][?python=PATH] names.

    Raises:
        UsageError: it names none.
    """
    wrong = UsageError(f"device '{text}': give ssh://USER@HOST or ssh://USER@HOST:PORT, and ?python=PATH if needed.")
    try:
        parts = urlsplit(text)
        port = parts.port
        asked = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        raise wrong from None
    host, user, python = parts.hostname or "", parts.username or "", asked.pop("python", ["python3"])[-1]
    named = NAME.fullmatch(host.strip("[]").replace(":", "")) and (not user or NAME.fullmatch(user))
    if parts.scheme != "ssh" or not named or parts.path not in ("", "/") or parts.password or asked or parts.fragment:
        raise wrong
    return DevicePlace(host, user, port, python)


@dataclass(frozen=True)
class SshDevice:
    """Times models on a device.

    threads, provider: of onnxruntime there.
    """

    place: DevicePlace
    seconds: float = TIMEOUT_SECONDS
    threads: int = 0
    provider: str | None = None
    _about: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The place, with machine and version of onnxruntime once it has answered; it is asked if it has not."""
        if not self._about:
            self.times([])
        return f"{self.place} {self._about['machine']} onnxruntime {self._about['onnxruntime']} {self.threads}"

    @property
    def calls_each(self) -> bool:
        """All models of a batch go in one call."""
        return False

    def times(self, models: Sequence[Path]) -> list[tuple[float, ...]]:
        """Return the times of every model in ms.

        Raises:
            DeviceError: it does not answer, has no onnxruntime, or a model does not run there.
        """
        with scratch_folder() as folder:
            archive = Path(folder) / "batch.tar"
            self._pack(models, archive)
            said = run(self._command(), self.seconds, f"the device '{self.place}'", archive)
        answer = self._answer(said)
        failed = answer["failed"]
        if failed:
            name, why = next(iter(failed.items()))
            raise DeviceError(f"the device '{self.place}' cannot run {models[int(name)].name}: {one_line(str(why))}")
        self._about.update({key: str(answer[key]) for key in ("machine", "onnxruntime")})
        return [tuple(float(time) for time in answer["times"][f"{number:06}"]) for number in range(len(models))]

    def _command(self) -> list[str]:
        place = self.place
        ssh = shlex.split(os.environ.get(VARIABLE, "")) or ["ssh"]
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={ANSWER_SECONDS}"]
        options += ["-p", str(place.port)] if place.port else []
        where = f"{place.user}@{place.host}" if place.user else place.host
        provider = self.provider or "CPUExecutionProvider"
        provider = provider if provider.endswith("ExecutionProvider") else f"{provider}ExecutionProvider"
        words = [str(RUNS), f"{SECONDS:g}", str(self.threads), provider, str(max(1, int(self.seconds)))]
        python, words = shlex.quote(place.python), [shlex.quote(word) for word in words]
        script = (
            "d=$(mktemp -d) || exit 71; trap 'rm -rf \"$d\"' EXIT; trap 'exit 72' HUP INT TERM PIPE; "
            f'tar xf - -C "$d" && {python} "$d/runner.py" "$d" {" ".join(words)}'
        )
        return [*ssh, *options, where, f"sh -c {shlex.quote(script)}"]

    @staticmethod
    def _pack(models: Sequence[Path], archive: Path) -> None:
        """Write runner, models, their weights in other files and their inputs."""
        with tarfile.open(archive, "w") as tar:
            tar.add(RUNNER, "runner.py")
            for number, model in enumerate(models):
                tar.add(model, f"{number:06}.onnx")
                inputs = model.with_suffix(".npz")
                if inputs.exists():
                    tar.add(inputs, f"{number:06}.npz")
                for other in sorted(model.parent.glob(f"{model.name}.*")):  # weights beside it, which it names
                    tar.add(other, other.name)

    def _answer(self, said: Finished) -> dict[str, dict[str, list[float]]]:
        if said.code == 255:
            raise DeviceError(f"the device '{self.place}' does not answer: {said.last_line}")
        line = next((line for line in reversed(said.out.splitlines()) if line.startswith("{")), "")
        if said.code or not line:
            raise DeviceError(f"the device '{self.place}' ran nothing (exit code {said.code}): {said.last_line}")
        try:
            answer: dict[str, dict[str, list[float]]] = json.loads(line)
        except ValueError as error:
            raise DeviceError(
                f"the device '{self.place}' answered '{one_line(line)[:80]}', which is no JSON."
            ) from error
        return answer
