"""However a command ends, there is one line, an exit code, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import networks

COMMAND = [sys.executable, "-m", "onnxprune"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return networks.store(networks.convnet(), tmp_path / "net.onnx")


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder / "tmp"), **more}


def run(folder: Path, *args: object, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, env=surroundings(folder, **more), check=False, timeout=120
    )


def left(folder: Path) -> set[str]:
    """Return what a command left in a folder, besides what Python itself does when it imports the user's code."""
    found = {path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    return {str(path.relative_to(folder)) for path in found} - {"net.onnx", "judge.py"}


CRASHES = {
    "a segmentation fault": "import ctypes; ctypes.string_at(0)",
    "an abort": "import os; os.abort()",
    "a kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "a silent end": "import os; os._exit(0)",
    "an end that looks like a failed gate": "import os; os._exit(3)",
}


@pytest.mark.parametrize("code", CRASHES.values(), ids=CRASHES.keys())
def test_a_crash_is_one_line_and_writes_nothing(model: Path, code: str) -> None:
    folder = model.parent
    (folder / "judge.py").write_text(f"def value(path):\n    {code}\n")
    (folder / "net-pruned.onnx").write_text("old")
    done = run(folder, model, "--no-verify", "--compensate", "none", "--eval", f"{folder / 'judge.py'}:value")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "nothing was written" in done.stderr
    assert left(folder) == {"net-pruned.onnx"} and (folder / "net-pruned.onnx").read_text() == "old"


ENDS = {
    "exit of zero at import": "import sys; sys.exit(0)",
    "exit of three in the function": "def value(path):\n    import sys; sys.exit(3)",
    "an error outside the tree": "class Odd(BaseException): pass\ndef value(path):\n    raise Odd('odd')",
    "an error of ours": "from onnxprune.errors import GateError\ndef value(path):\n    raise GateError('no')",
    "an end of generators": "def value(path):\n    raise GeneratorExit",
    "a number that ends it": "class N:\n    def __float__(self): raise SystemExit(0)\ndef value(path):\n    return N()",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS.keys())
def test_an_evaluation_cannot_end_the_command_quietly(model: Path, code: str) -> None:
    from click.testing import CliRunner

    from onnxprune.cli.group import cli

    (model.parent / "judge.py").write_text(code + "\n")
    spec = f"{model.parent / 'judge.py'}:value"
    done = CliRunner().invoke(cli, [str(model), "--no-verify", "--compensate", "none", "--eval", spec])
    assert done.exit_code == 2 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert left(model.parent) == set()


FEEDS = {
    "at import": "raise SystemExit(0)",
    "when it is called": "def feeds():\n    raise SystemExit(0)",
    "after the first": "def feeds():\n    yield {'x': X}\n    raise SystemExit(0)",
    "as a reader": "class R:\n    def get_next(self): raise SystemExit(0)\ndef feeds():\n    return R()",
    "in an array": "class A:\n    def __array__(self, *a, **k): raise SystemExit(0)\n"
    "def feeds():\n    yield {'x': A()}",
    "with a code of ours": "def feeds():\n    yield {'x': X}\n    raise SystemExit(4)",
}


@pytest.mark.parametrize("code", FEEDS.values(), ids=FEEDS.keys())
def test_feeds_cannot_end_the_command_quietly(model: Path, code: str) -> None:
    from click.testing import CliRunner

    from onnxprune.cli.group import cli

    head = "import numpy as np\nX = np.ones((1, 3, 12, 12), np.float32)\n"
    (model.parent / "judge.py").write_text(f"{head}{code}\n")
    spec = f"{model.parent / 'judge.py'}:feeds"
    done = CliRunner().invoke(cli, [str(model), "--data", spec])
    assert done.exit_code == 2 and "SystemExit" in done.stderr and len(done.stderr.splitlines()) == 1
    assert left(model.parent) == set()


def runs(process: int) -> bool:
    """Tell whether a process runs: one that has ended stays listed until its new parent, the system's, takes notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sleeper(kind: str) -> str:
    """Return an evaluation that stays in native code: without the lock of Python, with it, or in a loop of Python."""
    return {
        "native": "import ctypes; ctypes.CDLL(None).sleep(60)",
        "native with the lock": "import ctypes; ctypes.PyDLL(None).sleep(60)",
        "python": "import time; time.sleep(60)",
        "deaf": "\n    import time\n    while True:\n        try: time.sleep(60)\n        except BaseException: pass",
    }[kind]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGTERM, "native with the lock"),
        (signal.SIGHUP, "native"),
        (signal.SIGINT, "native"),
        (signal.SIGTERM, "deaf"),
        (signal.SIGHUP, "python"),
        (signal.SIGKILL, "native with the lock"),
    ],
)
def test_a_signal_ends_everything_within_two_seconds(model: Path, number: signal.Signals, kind: str) -> None:
    folder = model.parent
    now = folder / "tmp" / "now"
    (folder / "judge.py").write_text(
        f"import os, pathlib\ndef value(path):\n    pathlib.Path({str(now)!r}).write_text(str(os.getpid()))\n"
        f"    {sleeper(kind)}\n"
    )
    command = [*COMMAND, str(model), "--no-verify", "--compensate", "none", "--eval", f"{folder / 'judge.py'}:value"]
    process = subprocess.Popen(command, env=surroundings(folder), stderr=subprocess.PIPE, text=True)
    while not (now.exists() and now.read_text()) and process.poll() is None:
        time.sleep(0.02)
    inner = int(now.read_text())
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    while runs(inner) and time.monotonic() - start < 5:
        time.sleep(0.02)
    assert time.monotonic() - start < 2.0
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert len(errors.splitlines()) <= 1 and "Traceback" not in errors
    if number == signal.SIGKILL:  # what is left is swept by the next
        assert run(folder, model, "--no-verify", "--compensate", "none", "-q").returncode == 0
    assert left(folder) - {"tmp/now"} == ({"net-pruned.onnx"} if number == signal.SIGKILL else set())


def test_output_for_json_holds_nothing_but_the_report(model: Path) -> None:
    folder = model.parent
    (folder / "judge.py").write_text(
        "import os\ndef value(path):\n    print('hello'); os.system('echo there')\n    return 1\n"
    )
    np.savez(folder / "tmp" / "d.npz", x=np.ones((4, 3, 12, 12), np.float32))
    judge = ["--eval", f"{folder / 'judge.py'}:value", "--no-verify"]
    for provider in ("CPU", "cpuexecutionprovider"):
        data = ["--data", folder / "tmp" / "d.npz", "--compensate", "lstsq", "--provider", provider]
        done = run(folder, model, "--json", *data, *judge)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["format"] == "onnxprune-report"
    assert "hello" in done.stderr and "there" in done.stderr


def test_too_many_threads_are_bounded_with_a_line(model: Path) -> None:
    from click.testing import CliRunner

    from onnxprune.cli.group import cli

    done = CliRunner().invoke(cli, [str(model), "--no-verify", "--compensate", "none", "--threads", "10000"])
    assert done.exit_code == 0 and done.stderr.count("--threads 10000") == 1
