"""Writing a model: atomically, with the same bytes for the same model, and never over an input.

External data of the output stand in one file whose name carries a hash of its content: the model that is replaced
does not know that name, so a crash at any moment leaves either the old model or the new one, each with its own data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError, EncodeError

from onnxprune.errors import ModelError, OnnxpruneError, OutputError
from onnxprune.files.identity import real_target
from onnxprune.files.staging import Staging, create, final_mode, reason
from onnxprune.graph.check import check_structure, shape_problem
from onnxprune.graph.data_file import needs_data_file, set_location, write_data_file
from onnxprune.graph.external import data_files
from onnxprune.graph.repair import foreign_operators
from onnxprune.graph.source_file import read_bytes

if TYPE_CHECKING:
    from onnxprune.graph.model import Model

Check = Callable[[Path], None]
"""Looks at the finished file before it gets its name, and raises to reject it."""


def save(
    model: Model,
    path: str | Path,
    *,
    clobber: bool = True,
    inputs: Iterable[Path] = (),
    check: Check | None = None,
    source: Model | None = None,
    staging: Staging | None = None,
) -> None:
    """Write a model atomically: beside its place, checked, then renamed; an error leaves an old file as it was.

    Weights that were external stay so, in one file `<name>.<hash>.data` beside the output. Where the output is a
    link, the file that it leads to is written. A file that is replaced hands on its mode.

    Args:
        clobber: replace an existing output.
        inputs: files that must not be replaced; the file and data that the model came from always belong to them.
        check: further tests of the finished file, for instance one run in onnxruntime.
        source: the model before the change: what strict shape inference finds wrong there already is no error.
        staging: outputs that get their names together, the model last; the caller commits them.

    Raises:
        OutputError: the place cannot be written, is an input, or exists and may not be replaced.
        OnnxpruneError: the result is not valid, a defect of ours; nothing is written.
    """
    protected = [*inputs, *_files(model), *(_files(source) if source is not None else [])]
    check_output(path, clobber=clobber, inputs=protected)
    target = real_target(Path(path))
    with _as_output_error(target), nullcontext(staging) if staging else Staging(clobber=clobber) as drafts:
        replaced = _own_data(target)
        draft = drafts.add(Path(path), last=True)
        try:
            proto = _with_data_file(model, target, drafts) if needs_data_file(model) else model.proto
            _check_result(proto, model if source is None else source)
            with create(draft) as file:
                file.write(proto.SerializeToString(deterministic=True))
            if check is not None:
                check(draft)
        except BaseException:
            drafts.drop(Path(path))
            raise
        drafts.then(partial(_remove_unused, replaced, target, protected))
        if staging is None:
            drafts.commit()


def check_output(path: str | Path, *, clobber: bool = True, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that could not be written, before any work is done for it.

    Raises:
        OutputError: a folder, no folder to stand in, an input, a device, or an existing file with `clobber` off.
    """
    target = Path(path)
    try:
        exists = target.exists()
        if target.is_dir():
            raise OutputError(f"the output '{target}' is a folder; give the name of a file in it.")
        if not target.parent.is_dir():
            raise OutputError(f"the folder '{target.parent}' of the output does not exist; create it first.")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise OutputError(f"the folder '{target.parent}' of the output cannot be written; choose another with -o.")
        if exists and any(file.exists() and target.samefile(file) for file in inputs):
            raise OutputError(f"the output '{target}' is an input; choose another name with -o.")
        if not clobber and (exists or target.is_symlink()):
            raise OutputError(f"the output '{target}' exists and --no-clobber is set; choose another name with -o.")
        if (exists or target.is_symlink()) and not real_target(target).parent.is_dir():
            raise OutputError(f"the output '{target}' is a link into a folder that does not exist; choose another.")
        if exists and not target.is_file():
            raise OutputError(f"the output '{target}' is not a regular file; choose another name with -o.")
    except (OSError, ValueError) as error:
        raise OutputError(f"the output '{target}' cannot be written ({reason(error)}).") from error


def _files(model: Model) -> list[Path]:
    """Files that a model was read from."""
    if model.path is None:
        return []
    return [model.path, *data_files(model.proto, model.path.parent)]


def _with_data_file(model: Model, target: Path, drafts: Staging) -> onnx.ModelProto:
    """Write the data file under its final name, which no other model can know, and return the proto that uses it."""
    draft = drafts.extra(target.parent)
    proto, digest = write_data_file(model, draft)
    final = target.parent / f"{target.name}.{digest}.data"
    draft.chmod(final_mode(target))
    drafts.place(draft, final)
    set_location(proto, final.name)
    return proto


def _check_result(proto: onnx.ModelProto, source: Model) -> None:
    try:
        if made := foreign_operators(proto) - foreign_operators(source.proto):
            raise ModelError(f"the model is not valid ONNX: it has no operator {', '.join(sorted(made))}")
        check_structure(proto)
    except ModelError as error:
        raise OnnxpruneError(f"the result is not valid, nothing was written; please report this. {error}") from error
    problem = shape_problem(proto)
    if problem is None or (original := _original(source)) is None or shape_problem(original) is not None:
        return
    raise OnnxpruneError(f"the shapes of the result do not fit, nothing was written; please report this. {problem}")


def _original(source: Model) -> onnx.ModelProto | None:
    """Return the proto as it was read, without external data; None when only the changed one is known."""
    if source.path is None:
        return source.proto
    try:
        original: onnx.ModelProto = onnx.ModelProto.FromString(read_bytes(source.path))
        return original
    except (OSError, DecodeError, ModelError):
        return None


def _own_data(target: Path) -> set[Path]:
    """Data files that an older output of ours at this place uses."""
    named = {p for p in target.parent.iterdir() if p.name.startswith(f"{target.name}.") and p.suffix == ".data"}
    if not named:
        return set()
    try:
        proto = onnx.load(target, load_external_data=False)
    except (OSError, DecodeError):
        return set()
    return named & data_files(proto, target.parent)


def _remove_unused(replaced: set[Path], target: Path, protected: Sequence[Path]) -> None:
    """Remove the data of the model that was replaced."""
    if not replaced:
        return
    used = {*_own_data(target), *protected}
    for path in replaced:
        if not any(other.exists() and path.samefile(other) for other in used):
            with suppress(OSError):
                path.unlink()


@contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"the output '{target}' cannot be written ({reason(error)}); nothing changed.") from error
    except (EncodeError, ValueError) as error:
        raise OutputError(f"the output '{target}' cannot be encoded ({error}); nothing changed.") from error
