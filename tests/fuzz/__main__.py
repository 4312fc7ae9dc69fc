"""python -m tests.fuzz [--number N] [--seed S] [--first F]: prints what is wrong, exits with 1 if anything is.

Every command runs in a process forked from one that has imported everything, with bounds on time and memory.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import onnx

import onnxprune
from tests import networks
from tests.fuzz.cases import Case, draw, prepare

SECONDS, BYTES = 60, 2 << 30
RIGHT = (0, 2, 4)


def models() -> list[onnx.ModelProto]:
    """Return the sound models that are damaged."""
    from tests.micro import CASES

    wanted = [name for name in CASES if any(word in name for word in ("attention", "lstm", "split", "loop", "qdq"))]
    return [networks.convnet(width=16), *(CASES[name].model() for name in wanted[::4][:8])]


def attempt(case: Case, folder: Path) -> tuple[int, str, float, int]:
    """Return exit code (negative: a signal), standard error, seconds, and bytes of memory."""
    errors = folder / "stderr"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(case, errors)
    while time.monotonic() - start < SECONDS:
        number, status, usage = os.wait4(child, os.WNOHANG)
        if number:
            break
        time.sleep(0.005)
    else:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    text = errors.read_text(errors="replace")
    return os.waitstatus_to_exitcode(status), text, time.monotonic() - start, usage.ru_maxrss * 1024


def _child(case: Case, errors: Path) -> None:
    code = 1
    try:
        file = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (2 * BYTES, 2 * BYTES))
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        from onnxprune.cli.group import cli

        try:
            cli.main(args=list(case.arguments), prog_name="onnxprune")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def fault(code: int, errors: str, seconds: float, size: int) -> str | None:
    """Return what is wrong with how a command ended, None if nothing."""
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if seconds >= SECONDS:
        return "too slow"
    if size > BYTES:
        return f"{size >> 20} MB"
    if code < 0:  # a native library: the watcher of the command turns it into a line (tests/processes)
        return None if -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS) else f"signal {-code}"
    if code not in (*RIGHT, 3):
        return f"exit {code}"
    if "Traceback" in errors or "defect of onnxprune" in errors:
        return "traceback"
    if not all(char.isprintable() or char == "\n" for char in errors if char != "\t"):
        return "raw control characters"
    return None if code == 0 or len(lines) == 1 else f"{len(lines)} lines of error"


def main() -> int:
    """Run the cases and print what is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print how every command ends")
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    chosen = parser.parse_args()
    import_everything()
    codes: Counter[int] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_apart(folder)
        found = [onnx.load(path) for path in sorted(folder.glob("sound-*.onnx"))]
        for number in range(chosen.first, chosen.first + chosen.number):
            case = draw(number, chosen.seed, folder, found)
            before = set(folder.iterdir())
            code, errors, seconds, size = attempt(case, folder)
            codes[code] += 1
            wrong = fault(code, errors, seconds, size)
            if chosen.verbose:
                print(f"{number}: {code} {seconds:.2f} s {size >> 20} MB {' '.join(case.arguments)}: {errors[-200:]!r}")
            if wrong is not None:
                faults += 1
                line = next((line for line in reversed(errors.splitlines()) if line.strip()), "")
                print(
                    f"{number}: {wrong}: {' '.join(case.arguments).replace(name + '/', '')}: {line[:300]}", flush=True
                )
                if chosen.keep:
                    keep(folder, chosen.keep, number)
            for path in set(folder.iterdir()) - before | {folder / "out.onnx"}:
                path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
    print(f"{chosen.number} runs, {faults} faults, exit codes {dict(sorted(codes.items()))}")
    return int(faults > 0)


EXTRAS = ("cloudpickle", "dask", "distributed")
"""Packages that a file of ours imports at its top, and that an installation may do without."""


def import_everything() -> None:
    """Import what commands import when they need it, so that it is there after every fork."""
    others = ("onnxruntime.quantization", "onnx.reference", "scipy.linalg", "rich.table", "yaml", "onnx_graphsurgeon")
    ours = (module.name for module in pkgutil.walk_packages(onnxprune.__path__, "onnxprune."))
    for name in (*others, *(name for name in ours if not name.endswith("__main__"))):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise


def prepare_apart(folder: Path) -> None:
    """Write the sound files in a process of its own: sessions of onnxruntime do not outlive a fork."""
    child = os.fork()
    if child == 0:
        prepare(folder)
        for number, proto in enumerate(models()):
            onnx.save(proto, folder / f"sound-{number}.onnx")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0


def keep(folder: Path, target: Path, number: int) -> None:
    """Copy the damaged file of a case."""
    target.mkdir(parents=True, exist_ok=True)
    newest = max(folder.glob("damaged.*"), key=lambda path: path.stat().st_mtime)
    shutil.copyfile(newest, target / f"{number}{newest.suffix}")


if __name__ == "__main__":
    sys.exit(main())
