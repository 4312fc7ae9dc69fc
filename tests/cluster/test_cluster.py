"""A real scheduler and real workers give the same bytes as one process, also when one of them is killed."""

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed")

import onnxprune
from onnxprune import Gates, Run
from onnxprune.cluster import dask_crew, hiring
from onnxprune.cluster.luggage import LARGE_BYTES, packed, unpacked
from onnxprune.errors import ClusterError, DataError, UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.save import save
from onnxprune.processes.crew import at_work
from onnxprune.statistics import collect as collecting
from tests import networks
from tests.cluster.dask_processes import Processes

SHARD = 16


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A scheduler with two workers, which tests may kill and hire again."""
    processes = Processes(tmp_path_factory.mktemp("dask"))
    processes.hire(2)
    yield processes
    processes.close()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "SHARD", SHARD)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return networks.store(networks.convnet(width=16), tmp_path / "net.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    values = np.random.default_rng(1).standard_normal((140, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=values)
    return tmp_path / "data.npz"


def content(model: Model) -> bytes:
    return bytes(model.proto.SerializeToString(deterministic=True))


def test_a_prune_gives_the_same_plan_and_the_same_bytes(cluster: Processes, model: Path, data: Path) -> None:
    settings = {"macs": 0.6, "align": 1, "compensate": "lstsq"}
    alone = onnxprune.prune(model, data, **settings)
    shared = onnxprune.prune(model, data, run=Run(cluster=cluster.address), **settings)
    assert shared.plan.to_json() == alone.plan.to_json()
    assert content(shared.model) == content(alone.model)
    assert at_work() is None


def test_sensitivity_gives_the_same_errors(cluster: Processes, model: Path, data: Path) -> None:
    alone, shared = (onnxprune.sensitivity(model, data, run=run) for run in (Run(), Run(cluster=cluster.address)))
    assert shared.rows() == alone.rows()
    assert len(shared.groups) > 1


def test_a_worker_that_is_killed_during_tune_costs_time_only(
    cluster: Processes, model: Path, data: Path, tmp_path: Path
) -> None:
    judge = tmp_path / "judge.py"
    judge.write_text("import time\ndef value(path):\n    time.sleep(0.4)\n    return 1.0\n")
    settings = {"align": 1, "step": 0.3, "finest": 0.2}
    gates = Gates(max_drop=0.5, min_cosine=0.9, eval=f"{judge}:value")
    alone = onnxprune.tune(model, data, gates=gates, **settings)
    killed = list[str]()

    def tell(text: str) -> None:
        if text.startswith("trying") and not killed:
            killed.append(text)
            threading.Timer(0.5, cluster.kill_one).start()  # both have a candidate in hand by then
            cluster.hire()

    shared = onnxprune.tune(model, data, gates=gates, run=Run(cluster=cluster.address), progress=tell, **settings)
    assert killed
    assert shared.best == alone.best
    assert content(shared.model) == content(alone.model)


def test_a_worker_that_is_killed_during_finetune_costs_time_only(cluster: Processes, model: Path, data: Path) -> None:
    pruned = onnxprune.prune(model, data, ratio=0.5, align=1, compensate="none").model
    alone = onnxprune.finetune(model, pruned, data, steps=30)
    killed = list[str]()

    def tell(text: str) -> None:
        if text.startswith("gradient step 8") and not killed:
            killed.append(text)
            cluster.hire()
            cluster.kill_one()

    run = Run(cluster=cluster.address)
    shared = onnxprune.finetune(model, pruned, data, steps=30, run=run, progress=tell)
    assert killed
    assert shared.curve == alone.curve
    assert content(shared.model) == content(alone.model)


def test_a_shard_that_fails_is_named(cluster: Processes, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "feeds.py"
    source.write_text(
        "import os\nimport numpy as np\n\n"
        "def feeds():\n"
        f"    if os.getpid() != {os.getpid()}:\n        raise OSError('disk is gone')\n"
        "    yield {'x': np.random.default_rng(0).standard_normal((140, 3, 12, 12)).astype('float32')}\n"
    )
    with pytest.raises(DataError, match=r"shard 1 of 7 \(samples 1 to 16\): .*feeds.*disk is gone"):
        onnxprune.prune(model, f"{source}:feeds", ratio=0.5, run=Run(cluster=cluster.address))


def test_a_worker_that_dies_as_the_work_ends_breaks_nothing(
    cluster: Processes, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client
    from distributed.comm import CommClosedError

    def broken(client: Client, name: str) -> None:
        raise CommClosedError("the worker is gone")

    sent, register = [], Client.register_plugin

    def once_broken(client: Client, plugin: object, name: str) -> None:
        sent.append(name)
        if len(sent) == 1:
            raise CommClosedError("the worker is gone")
        register(client, plugin, name=name)

    monkeypatch.setattr(Client, "unregister_worker_plugin", broken)
    monkeypatch.setattr(Client, "register_plugin", once_broken)
    monkeypatch.setattr(dask_crew.time, "sleep", lambda seconds: None)
    alone = onnxprune.collect_statistics(model, data, shard=16)
    shared = onnxprune.collect_statistics(model, data, shard=16, run=Run(cluster=cluster.address))
    assert shared.to_bytes() == alone.to_bytes()
    assert sent[0] == sent[1]


def test_a_worker_of_another_version_is_named(cluster: Processes, model: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "onnxprune"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "version.py").write_text('__version__ = "0.0.1"\n')
    odd = Processes(tmp_path)
    try:
        odd.hire(environment={"PYTHONPATH": str(other.parent)})
        with pytest.raises(ClusterError, match=r"the worker tcp://.* has onnxprune 0\.0\.1, this command is"):
            onnxprune.prune(model, data, ratio=0.5, run=Run(cluster=odd.address))
    finally:
        odd.close()


def test_a_scheduler_that_does_not_answer_is_one_line(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiring, "ANSWER_SECONDS", 0.3)
    with pytest.raises(ClusterError, match=r"the scheduler at 'tcp://127\.0\.0\.1:9' does not answer"):
        onnxprune.prune(model, data, ratio=0.5, run=Run(cluster="tcp://127.0.0.1:9"))


@pytest.mark.parametrize("where", ["here", "local:0", "local:", "tcp://host", "tcp://host:1/x", ""])
def test_what_is_no_address_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="give tcp://HOST:PORT of a Dask scheduler, or local:N"):
        Run(cluster=where)


def test_without_dask_the_line_says_how_to_install_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiring.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"pip install 'onnxprune\[cluster\]'"):
        onnxprune.prune(model, ratio=0.5, run=Run(cluster="local:2"))


def test_workers_that_never_come_are_one_line(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiring, "ARRIVAL_SECONDS", 0.2)
    empty = Processes(tmp_path)
    try:
        with pytest.raises(ClusterError, match="no worker has come to"):
            onnxprune.prune(model, data, ratio=0.5, run=Run(cluster=empty.address))
    finally:
        empty.close()


def test_workers_that_all_die_are_one_line(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_crew, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(dask_crew, "LOOK_SECONDS", 0.2)
    lonely = Processes(tmp_path)
    try:
        lonely.hire()
        settings = {"macs": 0.6, "align": 1}
        with pytest.raises(ClusterError, match="no worker is left"):
            onnxprune.prune(
                model,
                data,
                run=Run(cluster=lonely.address),
                progress=lambda text: lonely.kill_one() if lonely.workers and "choosing" in text else None,
                **settings,
            )
    finally:
        lonely.close()


def test_what_is_large_travels_once_whoever_holds_it() -> None:
    proto = networks.convnet(width=64)
    one, two = packed({"model": proto, "name": 1}), packed(("again", proto))
    assert len(proto.SerializeToString()) > LARGE_BYTES > len(one[0])
    assert one[1].keys() == two[1].keys()
    again = unpacked(two[0], one[1])
    assert isinstance(again, tuple)
    assert again[1] == proto
    with pytest.raises(KeyError):
        unpacked(one[0], {})


def test_a_model_from_a_file_keeps_its_identity_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    save(Model(networks.convnet(width=64)), path)
    content, parts = packed(onnxprune.graph.model.load(path))
    assert unpacked(content, parts).sha256 == onnxprune.graph.model.load(path).sha256


def _double(kit: int, piece: int) -> int:
    return kit * piece


def test_processes_of_this_machine_are_a_crew_and_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with hiring.hired("local:1"):
        crew = at_work()
        assert crew is not None
        assert crew.size == 1
        assert list(crew.map(_double, 2, [3, 4], str)) == [6, 8]
    assert at_work() is None
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_that_goes_is_one_line(model: Path, data: Path, tmp_path: Path) -> None:
    leaving = Processes(tmp_path)
    try:
        leaving.hire()
        with pytest.raises(ClusterError, match="is gone; nothing was written"):
            onnxprune.prune(
                model,
                data,
                macs=0.6,
                align=1,
                run=Run(cluster=leaving.address),
                progress=lambda text: leaving.scheduler.kill() if text.startswith("measuring group") else None,
            )
    finally:
        leaving.close()
