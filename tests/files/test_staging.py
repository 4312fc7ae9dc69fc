"""Outputs appear together or not at all, look like what they replace, and are no input."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.errors import OutputError
from onnxprune.files import owner
from onnxprune.files.identity import files_of, refuse_inputs
from onnxprune.files.shown import one_line, shown
from onnxprune.files.staging import Staging, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_get_their_names_and_the_model_is_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(Path(to).name), rename(self, to))[1])
    with Staging() as staging:
        staging.add(tmp_path / "model", last=True).write_text("m")
        staging.text(tmp_path / "plan", "p")
        staging.text(tmp_path / "report", "r")
        staging.commit()
    assert order[-1] == "model" and set(order) == names(tmp_path) == {"model", "plan", "report"}


@pytest.mark.parametrize("failing", ["plan", "report", "model"])
def test_if_one_cannot_be_named_all_are_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    (tmp_path / "plan").write_text("old")
    (tmp_path / "model").write_text("old")
    rename = Path.replace

    def fail(self: Path, to: Path) -> Path:
        if Path(to).name == failing and self.read_text() != "old":
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="disk is full"), Staging() as staging:
        staging.add(tmp_path / "model", last=True).write_text("new")
        staging.text(tmp_path / "plan", "new")
        staging.text(tmp_path / "report", "new")
        staging.commit()
    assert names(tmp_path) == {"plan", "model"}
    assert (tmp_path / "plan").read_text() == (tmp_path / "model").read_text() == "old"


def test_an_error_before_the_end_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Staging() as staging:
        staging.text(tmp_path / "plan", "new")
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_what_is_replaced_hands_on_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(mode)
    write_text(path, "new")
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_gets_the_mode_of_new_files_and_a_draft_is_private(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with Staging() as staging:
        staging.text(tmp_path / "new", "x")
        (draft,) = (path for path in tmp_path.iterdir() if path.name.startswith(".onnxprune-"))
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600
        staging.commit()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_links_lead_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "real.json"
    real.write_text("old")
    for name, to in (("direct", real), ("twice", tmp_path / "direct"), ("dangling", tmp_path / "there" / "new.json")):
        (tmp_path / name).symlink_to(to)
        write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink() and to.read_text() == name
    assert real.read_text() == "twice"
    assert names(tmp_path / "there") == {"real.json", "new.json"}


def test_devices_pipes_folders_and_circles_of_links_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for path in (Path("/dev/null"), tmp_path / "pipe", tmp_path, tmp_path / "a"):
        with pytest.raises(OutputError):
            write_text(path, "x")
    assert Path("/dev/null").is_char_device()


def test_two_outputs_are_two_files_also_behind_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OutputError, match="two outputs"), Staging() as staging:
        staging.text(tmp_path / "real", "a")
        staging.text(tmp_path / "link", "b")


def test_an_output_may_be_no_input_by_any_of_its_names(tmp_path: Path) -> None:
    data = tmp_path / "data" / "deep"
    data.mkdir(parents=True)
    (data / "x.npz").write_text("x")
    (tmp_path / "judge.py").write_text("")
    (tmp_path / "soft").symlink_to(data / "x.npz")
    (tmp_path / "hard").hardlink_to(data / "x.npz")
    inputs = {"the data": files_of(tmp_path / "data"), "the evaluation": files_of(f"{tmp_path / 'judge.py'}:value")}
    held = {what: list(paths) for what, paths in inputs.items()}
    for path in (data / "x.npz", data / ".." / "deep" / "x.npz", tmp_path / "soft", tmp_path / "hard"):
        with pytest.raises(OutputError, match="the data"):
            refuse_inputs([None, path], held)
    with pytest.raises(OutputError, match="the evaluation"):
        refuse_inputs([tmp_path / "judge.py"], held)
    refuse_inputs([tmp_path / "new.json", None], held)


def dead_owner() -> tuple[str, str]:
    """Return the name of a draft and the prefix of folders of a process that has ended."""
    code = "from onnxprune.files import owner; print(owner.draft_name(), owner.folder_prefix())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    draft, prefix = done.stdout.split()
    return draft, prefix


def test_only_what_dead_processes_of_ours_left_is_swept(tmp_path: Path) -> None:
    draft, prefix = dead_owner()
    host = draft.split("-")[1]
    (tmp_path / draft).touch()
    (tmp_path / f"{prefix}ab12cd34").mkdir()
    (tmp_path / f"{prefix}ab12cd34" / "inner").touch()
    kept = {
        owner.draft_name(),
        draft.replace(host, "0" * 8),
        ".onnxprune-mine.tmp",
        "onnxprune-data",
        f".onnxprune-{host}-notes.tmp",
        f"{draft}.npz",
    }
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / f"{prefix}ffffffff").symlink_to(tmp_path / "onnxprune-data")
    owner.sweep(tmp_path)
    assert names(tmp_path) == {*kept, f"{prefix}ffffffff"}


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b31m", "a\u202eb", "\x07", "\udc80", "x\ry"])
def test_nothing_in_a_name_reaches_a_terminal_raw(text: str) -> None:
    found = shown(text)
    assert found.isprintable() and "\\" in found


def test_names_of_people_stay_as_they_are() -> None:
    assert shown("Größe 模型 δ/conv_1") == "Größe 模型 δ/conv_1"
    assert one_line("a\n  b\tc") == "a b c" and len(one_line("x" * 9999)) < 2100
