"""What a command may take and where it may call: bounds on memory, and no word to anybody."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxprune.processes import engine, memory
from tests import networks

COMMAND = [sys.executable, "-m", "onnxprune"]

GUARD = """
import os, socket, sys
def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        os.write(2, f"NETWORK {event} {arguments}\\n".encode())
        os._exit(99)
sys.addaudithook(refuse)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name in ("home", "tmp", "guard", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    return networks.store(networks.convnet(width=16), tmp_path / "work" / "net.onnx")


def surroundings(folder: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return plain | {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "home" / ".cache"),
        "PYTHONPATH": os.pathsep.join([str(folder / "guard"), str(Path(__file__).parents[2])]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def open_connections(process: int) -> set[str]:
    """Return the ends of the connections that a process has, as the kernel lists them."""
    found = set()
    for file in Path(f"/proc/{process}/fd").glob("*"):
        try:
            target = str(file.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.mark.parametrize("command", ["inspect", "prune", "quantize"])
def test_nothing_is_sent_and_nothing_is_left_in_the_home(model: Path, command: str) -> None:
    """onnxruntime calls its maker from threads of its own when it is imported: that leaves files and sockets."""
    folder = model.parent.parent
    np.savez(folder / "work" / "d.npz", x=np.ones((8, 3, 12, 12), np.float32))
    extra = {"prune": ["--compensate", "none"], "quantize": ["--mode", "static", "--data", folder / "work" / "d.npz"]}
    arguments = [*COMMAND, command, model, *extra.get(command, []), "--no-cache"]
    arguments = arguments if command != "inspect" else arguments[:-1]
    process = subprocess.Popen(
        [str(word) for word in arguments], env=surroundings(folder), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    seen: set[str] = set()
    while process.poll() is None:
        for child in (process.pid, *children(process.pid)):
            seen |= open_connections(child)
        try:
            process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
    errors = process.communicate()[1].decode()
    assert process.returncode == 0 and "NETWORK" not in errors, errors
    assert seen == set()
    assert [path for name in ("home", "tmp") for path in (folder / name).rglob("*") if path.is_file()] == []


def children(process: int) -> list[int]:
    found = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(number) for number in file.read_text().split()]
        except OSError:
            continue
    return found


def test_the_guard_sees_a_connection(model: Path) -> None:
    code = "import socket; socket.getaddrinfo('localhost', 80)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=surroundings(model.parent.parent), capture_output=True, check=False
    )
    assert done.returncode == 99 and b"NETWORK" in done.stderr


def test_every_process_that_is_started_has_telemetry_off() -> None:
    code = "import onnxprune, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    surroundings = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n"


def test_a_limit_of_the_system_is_called_memory(model: Path) -> None:
    """A limit of the address space that onnxruntime, numpy or the interpreter run into."""
    import resource

    codes = set()
    for megabytes in (60, 250, 400):

        def bounded(size: int = megabytes << 20) -> None:
            resource.setrlimit(resource.RLIMIT_DATA, (size, size))

        command = [*COMMAND, str(model), "--threads", "1", "--compensate", "none"]
        done = subprocess.run(
            command,
            env=surroundings(model.parent.parent),
            capture_output=True,
            text=True,
            preexec_fn=bounded,
            check=False,
        )
        codes.add(done.returncode)
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert "memory" in done.stderr and not model.with_name("net-pruned.onnx").exists()
    assert 2 in codes


def test_what_a_command_takes_is_bounded_by_its_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model.parent.parent
    (folder / "judge.py").write_text(
        "import onnxprune.processes.memory as m\nm.ROOM_BYTES = m.DEFAULT_BYTES = 64 << 20\nm.allow(model=1)\n"
        "def value(path):\n    import time\n    kept = []\n    for i in range(60):\n"
        "        kept.append(bytearray(b'x' * (32 << 20))); time.sleep(0.05)\n    return 1\n"
    )
    command = [*COMMAND, str(model), "--no-verify", "--compensate", "none", "--eval", f"{folder / 'judge.py'}:value"]
    done = subprocess.run(command, env=surroundings(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: memory: ") and len(done.stderr.splitlines()) == 1
    assert not model.with_name("net-pruned.onnx").exists()


def test_the_limit_grows_with_the_model_the_data_and_what_is_given() -> None:
    small = memory.limit_of(0, 0, None).bytes
    assert small < memory.limit_of(1 << 30, 0, None).bytes < memory.limit_of(1 << 30, 1 << 30, None).bytes
    assert memory.limit_of(0, 0, 1 << 30).bytes < small < memory.limit_of(0, 0, 8 << 30).bytes
    assert memory.Limit.read(f"{small} some words") == memory.Limit(small, "some words")
    assert memory.taken(os.getpid()) > 1 << 20


def test_a_shortage_is_known_whoever_tells_of_it() -> None:
    def behind(error: BaseException) -> BaseException:
        outer = ValueError("something else")
        outer.__cause__ = error
        return outer

    for error in (MemoryError(), RuntimeError("std::bad_alloc"), OSError(12, "Cannot allocate memory")):
        assert memory.is_shortage(error) and memory.is_shortage(behind(error))
    assert not memory.is_shortage(ValueError("a tensor")) and not memory.is_shortage(OSError(2, "No such file"))


@pytest.mark.parametrize(("given", "used"), [(None, 0), (-3, 0), (1, 1), (10**9, engine.most_threads())])
def test_threads_are_those_that_the_machine_can_carry(given: int | None, used: int) -> None:
    assert engine.bounded(given) == used
