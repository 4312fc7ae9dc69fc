"""What is kept between commands is ours alone, is believed only when it is whole, and is never needed."""

import os
from pathlib import Path

import numpy as np
import pytest

from onnxprune.processes import places
from onnxprune.statistics import cache

ARRAYS = {"a": np.arange(6.0).reshape(2, 3)}
NAME = cache.key("something")


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    return tmp_path


def stored(folder: Path) -> Path:
    cache.store(NAME, ARRAYS)
    (found,) = folder.rglob("*.statistics")
    return found


def test_what_is_stored_comes_back(asked: Path) -> None:
    stored(asked)
    assert np.array_equal(cache.load(NAME)["a"], ARRAYS["a"])
    assert cache.load(cache.key("something else")) is None


def test_only_files_of_ours_are_ever_removed(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = stored(asked)
    others = [asked / "data.npz", asked / "0.statistics", own.parent / "mine.npz", own.parent / f"{'a' * 64}.npz"]
    for path in others:
        path.write_bytes(b"x" * 1000)
        os.utime(path, (0, 0))
    linked = own.parent / f"{'b' * 64}.statistics"
    linked.symlink_to(others[0])
    monkeypatch.setattr(cache, "LIMIT_BYTES", 4000)
    for number in range(20):
        cache.store(cache.key(number), ARRAYS)
    assert all(path.read_bytes() == b"x" * 1000 for path in others) and linked.is_symlink()
    assert sum(path.stat().st_size for path in own.parent.glob("*.statistics") if path != linked) <= 4000


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def rename(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(NAME.encode(), b"0" * 64))


def foreign(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def open_to_all(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("poison", [flip, rename, foreign, open_to_all, lambda path: path.write_bytes(b"")])
def test_what_is_not_as_it_was_stored_is_not_believed(asked: Path, poison) -> None:  # type: ignore[no-untyped-def]
    poison(stored(asked))
    assert cache.load(NAME) is None
    cache.store(NAME, ARRAYS)


def test_a_folder_that_others_may_write_to_is_not_used(asked: Path) -> None:
    place = stored(asked).parent
    place.chmod(0o777)
    assert cache.load(NAME) is None


def test_a_library_call_keeps_nothing_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.VARIABLE)
    assert cache.folder() is None
    for word in ("off", "OFF", "0", "none", ""):
        monkeypatch.setenv(places.VARIABLE, word)
        assert cache.folder() is None


def test_a_command_keeps_statistics_in_the_users_folder_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for home, folder in (("/somewhere", Path("/somewhere/.cache/onnxprune")), ("/", None), ("relative", None)):
        monkeypatch.delenv(places.VARIABLE, raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", home)
        places.keep_statistics()
        asked = places.statistics_folder()
        assert asked == folder


def test_a_user_without_name_and_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """pathlib raises RuntimeError where HOME is not set and the user has no entry in the list of users."""
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in (places.VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    places.keep_statistics()
    assert places.statistics_folder() is None


def test_a_folder_that_cannot_be_written_is_no_error(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (asked / "file").touch()
    for place in (asked / "file" / "below", Path("/proc/nothing"), asked / ("long" * 100)):
        monkeypatch.setenv(places.VARIABLE, str(place))
        cache.store(NAME, ARRAYS)
        assert cache.load(NAME) is None
