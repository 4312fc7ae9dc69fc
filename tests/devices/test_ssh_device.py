"""A board that is reached by ssh: this machine, through an sshd on loopback."""

import getpass
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune import Run
from onnxprune.devices import ssh_device
from onnxprune.devices.watches import watch_of
from onnxprune.errors import DeviceError
from tests import networks
from tests.devices.ssh_server import MISSING, Server

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)} here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sshd, which this user may use."""
    try:
        found = Server(tmp_path_factory.mktemp("ssh"))
    except OSError as error:
        pytest.skip(f"sshd cannot be started here: {error}")
    yield found
    found.close()


@pytest.fixture
def place(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(ssh_device.VARIABLE, server.ssh)
    monkeypatch.setattr(ssh_device, "SECONDS", 0.1)
    return f"ssh://{getpass.getuser()}@127.0.0.1:{server.port}?python={sys.executable}"


def left(server: Server) -> list[Path]:
    """What is left on the device, once the shell there has had a moment."""
    end = time.monotonic() + 10
    while time.monotonic() < end and list(server.temporary.iterdir()):
        time.sleep(0.1)
    return list(server.temporary.iterdir())


def test_models_are_timed_there_and_nothing_is_left(server: Server, place: str, tmp_path: Path) -> None:
    onnx.save(networks.convnet(width=64), tmp_path / "large.onnx")
    timings = onnxprune.bench([tmp_path / "large.onnx", networks.convnet(width=8)], device=place)
    assert list(timings) == [str(tmp_path / "large.onnx"), "model 2"]
    large, small = timings.values()
    assert large.steady_ms > small.steady_ms > 0
    assert large.runs >= 3
    assert left(server) == []


def test_a_prune_meets_a_latency_there(server: Server, place: str, tmp_path: Path) -> None:
    onnx.save(networks.convnet(width=32), tmp_path / "net.onnx")
    run = Run(device=place, threads=1)
    try:
        found = onnxprune.prune(tmp_path / "net.onnx", latency=0.7, compensate="none", run=run)
        assert found.latency is not None
        assert found.keep
    except onnxprune.NothingToPruneError as error:  # a busy machine; that it was measured is what counts
        assert "measured" in str(error)
    assert left(server) == []


def test_a_device_is_known_by_its_runtime(place: str) -> None:
    import onnxruntime

    watch = watch_of(place, None)
    assert watch is not None
    assert f"onnxruntime {onnxruntime.__version__}" in watch.name


def test_weights_beside_the_model_travel_with_it(server: Server, place: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(networks.convnet(width=64), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert onnxprune.bench([path], device=place)[str(path)].steady_ms > 0
    assert left(server) == []


def unknown() -> onnx.ModelProto:
    """A model of an operator that no onnxruntime has."""
    ports = [helper.make_tensor_value_info(name, networks.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Nothing", ["x"], ["y"], domain="nowhere")
    return networks.model([node], ports[:1], ports[1:], domains=["nowhere"])


def test_a_model_that_does_not_run_there_is_one_line(server: Server, place: str) -> None:
    with pytest.raises(DeviceError, match=r"cannot run model0\.onnx"):
        onnxprune.bench([unknown()], device=place)
    assert left(server) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda place: place.partition("?")[0] + "?python=/nowhere/python", "ran nothing.*not found"),
        (lambda place: place.partition("?")[0] + "?python=/bin/true", "ran nothing"),
        (lambda _: "ssh://127.0.0.1:9", "does not answer"),
        (lambda place: place.replace("@", "-nobody@"), "does not answer"),
    ],
)
def test_a_device_that_fails_is_one_line_and_keeps_nothing(server: Server, place: str, wrong: object, why: str) -> None:
    with pytest.raises(DeviceError, match=why) as caught:
        onnxprune.bench([networks.convnet(width=8)], device=wrong(place))  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert left(server) == []


def test_a_device_that_takes_too_long_is_left_clean(server: Server, place: str, tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nsleep 2\n")
    slow.chmod(0o755)
    with pytest.raises(DeviceError, match="took longer than 1 seconds"):
        onnxprune.bench(
            [networks.convnet(width=8)], device=place.partition("?")[0] + f"?python={slow}", latency_timeout=1
        )
    assert left(server) == []
