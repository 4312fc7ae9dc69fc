"""Signatures of a model and the files of its weights: a key, a bundle beside the model, and whether both still fit.

Source: OpenSSF Model Signing 1.0 (a sigstore bundle with an in-toto statement of the SHA-256 of every file), written
and read by the package `model-signing`.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import ModuleType

from onnxprune.errors import GateError, ModelError, UsageError
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.external import WeightFiles
from onnxprune.graph.model import file_sha256

SUFFIX = ".sig"
PASSWORD = "ONNXPRUNE_KEY_PASSWORD"
"""Environment variable with the password of an encrypted key: a word on a command line could be read by others."""


@dataclass(frozen=True)
class Signed:
    """What a signature that fits says: the files that it names, and where it stands."""

    files: tuple[str, ...]
    signature: Path


def signature_beside(model: Path) -> Path:
    """Return where the signature of a model stands."""
    return model.with_name(f"{model.name}{SUFFIX}")


def check_signing(key: Path) -> None:
    """Make sure, before any work, that a model can be signed.

    Raises:
        UsageError: the package is missing, or the file holds no key that signs.
    """
    _check_installed()
    _private(key)


def sign(model: Path, key: Path, *, name: str) -> str:
    """Return the signature of a model and the files of its weights.

    Args:
        key: private key of an elliptic curve (P-256, P-384, P-521), PEM.
        name: what the model will be called in its folder; the file may still have another name.

    Raises:
        UsageError: the file holds no key that signs.
    """
    _check_installed()
    from model_signing.hashing import Config as Hashing
    from model_signing.signing import Config as Signing

    _private(key)
    password = os.environ.get(PASSWORD)
    signer = Signing().use_elliptic_key_signer(private_key=key, password=password.encode() if password else None)
    with scratch_folder() as folder:
        place = _linked({name: model, **_weights(model)}, Path(folder) / Path(name).stem)
        written = Path(folder) / "signature"
        signer.set_hashing_config(Hashing().set_allow_symlinks(True)).sign(place, written)
        return written.read_text()


def verify(model: str | Path, key: str | Path, signature: str | Path | None = None) -> Signed:
    """Return what a signature says of a model that is as it was signed, its external weights among it.

    Args:
        key: public key, PEM.
        signature: beside the model if None, `<model>.sig`.

    Raises:
        GateError: the model, a file of its weights or the signature is not what was signed with this key.
        ModelError: there is no model.
        UsageError: there is no signature or key to read, or the package is missing.
    """
    _check_installed()
    from model_signing.hashing import Config as Hashing
    from model_signing.verifying import Config as Verifying

    model, key = Path(model), Path(key)
    bundle = signature_beside(model) if signature is None else Path(signature)
    if not model.is_file():
        raise ModelError(f"'{model}': there is no such file; name the model.")
    _public(key)
    named = _named(bundle)
    own = {model.name: model, **_weights(model)}
    other = {name: model.parent / name for name in named if name not in own and (model.parent / name).is_file()}
    with scratch_folder() as folder:
        place = _linked({**own, **other}, Path(folder) / "model")
        try:
            verifier = Verifying().use_elliptic_key_verifier(public_key=key)
            verifier.set_hashing_config(Hashing().set_allow_symlinks(True)).verify(place, bundle)
        except Exception as error:  # what is wrong with a signature raises whatever its reader stumbles over
            raise GateError(f"'{model}' {_fault(model, own, named, error)} Do not use it.") from error
    return Signed(tuple(sorted(named)), bundle)


def _fault(model: Path, own: Mapping[str, Path], named: Mapping[str, str], error: Exception) -> str:
    """Return what does not fit, in words for who has to act on it.

    Args:
        own: files that the model consists of. named: file -> hash, as they were signed.
    """
    if "Signature mismatch" not in str(error):
        return "was not signed with this key, or its signature was changed."
    if model.name not in named:
        return f"is not what was signed: the signature is of {_listed(named)}."
    found = {name: model.parent / name for name in named if _is_inside(name)}
    if changed := [name for name, path in found.items() if path.is_file() and file_sha256(path) != named[name]]:
        return f"is not what was signed: {_listed(changed)} changed since."
    if unsigned := own.keys() - named.keys():
        return f"is not what was signed: it reads weights from {_listed(unsigned)}, which were not signed."
    return f"is not what was signed: {_listed(name for name in named if name not in own)} is missing."


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    shown = ", ".join(f"'{name}'" for name in listed[:3])
    return f"{shown} and {len(listed) - 3} more" if len(listed) > 3 else shown


def _named(bundle: Path) -> dict[str, str]:
    """Return the files that a signature names with their hashes, before anything is known about whether it holds.

    Raises:
        UsageError: it cannot be read, or is no signature of a model.
    """
    try:
        envelope = json.loads(bundle.read_bytes())["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        return {str(item["name"]): str(item.get("digest")) for item in statement["predicate"]["resources"]}
    except OSError as error:
        raise UsageError(f"the signature '{bundle}' cannot be read ({error.strerror}); name its file.") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"'{bundle}' is no signature of a model; sign the model again.") from error


def _weights(model: Path) -> dict[str, Path]:
    """Return the files of a model's weights by their names in its folder; one outside of it is never read."""
    named = {file.relative_to(model.parent).as_posix(): file for file in WeightFiles(model)}
    return {name: file for name, file in named.items() if _is_inside(name)}


def _is_inside(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _linked(files: Mapping[str, Path], place: Path) -> Path:
    """Return a folder in which files have the names that are signed, without a copy of them."""
    place.mkdir()
    for name, path in files.items():
        if not _is_inside(name):
            continue
        link = place / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return place


def _check_installed() -> None:
    if find_spec("model_signing") is None:
        raise UsageError("signatures need model-signing: pip install 'onnxprune[sign]'.")
    if "model_signing" not in sys.modules:
        _import_library()


def _import_library() -> None:
    """Import model-signing, with a stand-in for pyOpenSSL where that is missing.

    It imports it for certificates, which keys do not need, and its metadata do not ask for it.
    """
    missing = find_spec("OpenSSL") is None
    if missing:
        stand_in = ModuleType("OpenSSL")
        vars(stand_in)["crypto"] = ModuleType("OpenSSL.crypto")
        sys.modules["OpenSSL"] = stand_in
    try:
        importlib.import_module("model_signing")
    finally:
        if missing:
            del sys.modules["OpenSSL"]


def _private(key: Path) -> None:
    """Read a private key.

    Raises:
        UsageError: it is none that signs.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    password = os.environ.get(PASSWORD)
    content = _content(key)
    try:
        found = load_pem_private_key(content, password.encode() if password else None)
    except TypeError as error:
        told = f"is encrypted; {PASSWORD} holds no password" if not password else f"is not encrypted, unset {PASSWORD}"
        raise UsageError(f"the key '{key}' {told}.") from error
    except Exception as error:  # also what the library has no way to read
        raise UsageError(f"the key '{key}' is no private key in PEM, or its password is another.") from error
    _check_curve(key, found, EllipticCurvePrivateKey)


def _public(key: Path) -> None:
    """Read a public key.

    Raises:
        UsageError: it is none that verifies.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _content(key)
    try:
        found = load_pem_public_key(content)
    except Exception as error:  # also what the library has no way to read
        raise UsageError(f"the key '{key}' is no public key in PEM; a private one only signs.") from error
    _check_curve(key, found, EllipticCurvePublicKey)


def _content(key: Path) -> bytes:
    try:
        return key.read_bytes()
    except OSError as error:
        raise UsageError(f"the key '{key}' cannot be read ({error.strerror}); name its file.") from error


def _check_curve(key: Path, found: object, kind: type) -> None:
    curve = getattr(getattr(found, "curve", None), "name", "")
    if not isinstance(found, kind) or curve not in ("secp256r1", "secp384r1", "secp521r1"):
        raise UsageError(f"the key '{key}' is of another kind; give one of the curve P-256, P-384 or P-521.")
