"""Pairs of keys for tests."""

from importlib.util import find_spec
from pathlib import Path

import pytest


def pair(folder: Path, name: str = "key", password: str = "") -> tuple[Path, Path]:
    """Write a private and a public key of the curve P-256 and return their files."""
    if find_spec("model_signing") is None:
        pytest.skip("the extra sign is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    made = ec.generate_private_key(ec.SECP256R1())
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private, public = folder / f"{name}.pem", folder / f"{name}-public.pem"
    private.write_bytes(made.private_bytes(pem, form, hidden))
    public.write_bytes(made.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public
