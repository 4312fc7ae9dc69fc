"""Where calibration data come from: array files, folders, functions, readers. Each becomes a stream of raw feeds."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxprune.errors import DataError
from onnxprune.processes import user_code
from onnxprune.statistics.feeds import InputSpec
from onnxprune.statistics.image_options import ImageOptions
from onnxprune.statistics.images import SUFFIXES, read_images
from onnxprune.statistics.packed import Rows, read_npz, wanted_rows
from onnxprune.types import Array

Arrays = Mapping[str, Array]
Feeds = Callable[[], Iterator[tuple[str, Arrays]]]


@dataclass(frozen=True)
class Source:
    """Yields (where it comes from, arrays by name) when it is called, as often as that is.

    What has a path can be sent to another process, which reads it there.
    """

    feeds: Feeds
    spec: object
    inputs: tuple[InputSpec, ...]
    images: ImageOptions
    samples: int | None

    def __call__(self) -> Iterator[tuple[str, Arrays]]:
        return self.feeds()

    @property
    def is_path(self) -> bool:
        """Whether others can read it by its name."""
        return isinstance(self.spec, str | Path)

    def __reduce__(self) -> tuple[object, ...]:
        spec = str(Path(self.spec).resolve()) if isinstance(self.spec, str | Path) else None
        return _sent, (spec, self.inputs, self.images, self.samples)


def _sent(spec: str | None, inputs: tuple[InputSpec, ...], images: ImageOptions, samples: int | None) -> Source:
    """Return a source as another process sees it: its file is opened when it is read."""

    def feeds() -> Iterator[tuple[str, Arrays]]:
        if spec is None:
            raise DataError("data that are no file cannot be read in another process; give a path.")
        yield from open_source(spec, inputs, images, samples)()

    return Source(feeds, spec, inputs, images, samples)


def open_source(
    spec: str | Path | Iterable[object] | object,
    inputs: Sequence[InputSpec],
    images: ImageOptions,
    samples: int | None = None,
) -> Source:
    """Return the stream of raw feeds behind a path, `file.py:function`, an iterable or a CalibrationDataReader.

    Raises:
        DataError: there is nothing of a known kind.
    """
    return Source(_feeds_of(spec, inputs, images, samples), spec, tuple(inputs), images, samples)


def _feeds_of(
    spec: str | Path | Iterable[object] | object,
    inputs: Sequence[InputSpec],
    images: ImageOptions,
    samples: int | None,
) -> Feeds:
    if isinstance(spec, Mapping):
        return lambda: iter([("data", spec)])
    if not isinstance(spec, str | Path):
        return _object_source(spec)
    text = str(spec)
    file, colon, function = text.rpartition(":")
    if colon and file.endswith(".py"):
        return _function_source(Path(file), function)
    path = Path(text)
    if path.is_dir():
        return _folder_source(path, inputs, images, samples)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; give .npz, .npy, a folder, or file.py:function.")
    if path.suffix == ".py":
        raise DataError(f"{path}: say which function yields the feeds: {path}:function.")
    if path.suffix.lower() in SUFFIXES:
        return lambda: ((str(path), feed) for feed in read_images([path], _only(inputs, path), images))
    rows = wanted_rows(inputs, samples)
    return lambda: iter([(str(path), read_arrays(path, rows))])


def read_arrays(path: Path, rows: Rows | None = None) -> Arrays:
    """Return the arrays of a .npz (or .npy, named `arr_0`) file, without pickles and below a limit of size.

    Args:
        rows: (name, number of axes) -> how many rows are wanted of an array, see `packed.read_npz`.

    Raises:
        DataError: the file is of another kind, damaged, too large, or holds Python objects.
    """
    try:
        if path.suffix == ".npy":
            return {"arr_0": np.load(path, mmap_mode="r", allow_pickle=False)}
        if path.suffix != ".npz":
            raise DataError(f"{path}: data are .npz, .npy, images, a folder of these, or file.py:function.")
        return read_npz(path, {} if rows is None else rows)
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise whatever they meet
        raise DataError(
            f"{path}: not readable as arrays ({error}); write it with numpy.savez, without objects."
        ) from error


def _folder_source(folder: Path, inputs: Sequence[InputSpec], images: ImageOptions, samples: int | None) -> Feeds:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    arrays = [path for path in files if path.suffix in (".npz", ".npy")]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if arrays and pictures:
        raise DataError(f"{folder}: has both arrays and images; give a folder of one kind.")
    if pictures:
        spec = _only(inputs, folder)
        return lambda: ((str(folder), feed) for feed in read_images(pictures, spec, images))
    if not arrays:
        raise DataError(f"{folder}: no .npz, .npy or image files in it.")
    names = {spec.name for spec in inputs}
    if names <= {path.stem for path in arrays if path.suffix == ".npy"}:
        by_input = {path.stem: path for path in arrays if path.stem in names}
        return lambda: iter([(str(folder), {name: read_arrays(path)["arr_0"] for name, path in by_input.items()})])
    rows = wanted_rows(inputs, samples)
    return lambda: ((str(path), read_arrays(path, rows)) for path in arrays)


def _only(inputs: Sequence[InputSpec], path: Path) -> InputSpec:
    if len(inputs) != 1:
        raise DataError(f"{path}: images feed one input, the model has {len(inputs)}; give .npz or file.py:function.")
    return inputs[0]


def _function_source(path: Path, name: str) -> Feeds:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give file.py:function.")
    function = load_function(path, name)

    def feeds() -> Iterator[tuple[str, Arrays]]:
        origin = f"{path}:{name}"
        result = user_code.call(f"{origin}: raised", function)
        yield from _named([result] if isinstance(result, Mapping) else result, origin)

    return feeds


@dataclass(frozen=True)
class FileFunction:
    """A function of a Python file that other processes can load too."""

    path: Path
    name: str

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return FileFunction, (self.path, self.name)

    @cached_property
    def function(self) -> Callable[..., object]:
        """The function itself, loaded when it is first used."""
        return load_function(self.path, self.name)

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)


def load_function(path: Path, name: str) -> Callable[..., object]:
    """Return a function of a Python file, with the file's folder importable while it is loaded.

    Raises:
        DataError: the file fails to load or has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"onnxprune_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        user_code.call(f"{path}: while it was loaded, it raised", spec.loader.exec_module, module)
    finally:
        with suppress(ValueError):
            sys.path.remove(str(path.parent.resolve()))
    function = user_code.call(f"{path}: raised", getattr, module, name, None)
    if not callable(function):
        raise DataError(f"{path}: has no function '{name}'.")
    return function  # type: ignore[no-any-return]  # callable was just checked, of a module of the user


def _object_source(source: object) -> Feeds:
    """A reader or one-shot iterator is read once and kept; a list or other iterable is read as often as asked."""
    if hasattr(source, "get_next") or isinstance(source, Iterator):
        kept = list(_named(source, "data"))
        return lambda: iter(kept)
    if not isinstance(source, Iterable):
        raise DataError(f"data of type {type(source).__name__}: give a path, feeds, or a CalibrationDataReader.")
    return lambda: _named(source, "data")


def _named(feeds: object, origin: str) -> Iterator[tuple[str, Arrays]]:
    for number, feed in enumerate(user_code.iterate(f"{origin}: raised", feeds)):
        if not isinstance(feed, Mapping):
            raise DataError(f"{origin}: item {number} is a {type(feed).__name__}, not a dict of input name to array.")
        yield f"{origin} (feed {number})", user_code.call(f"{origin}: raised", _arrays, feed)


def _arrays(feed: Mapping[object, object]) -> Arrays:
    return {str(name): np.asarray(array) for name, array in feed.items()}
