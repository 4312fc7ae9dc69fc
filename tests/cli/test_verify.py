"""Signatures: what was signed verifies, and whatever is touched afterwards does not."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune.graph import signature
from tests import keys, networks
from tests.cli.conftest import Run, files

PRUNE = ("--compensate", "none", "--no-verify")


@pytest.fixture
def signed(run: Run, tmp_path: Path) -> tuple[Path, Path]:
    """A pruned model with external weights, signed; and the public key."""
    model = tmp_path / "net.onnx"
    onnx.save(networks.convnet(width=16), model, save_as_external_data=True, location="net.data", size_threshold=0)
    private, public = keys.pair(tmp_path)
    made = run("prune", model, *PRUNE, "--sign", private, "-o", tmp_path / "small.onnx")
    assert made.exit_code == 0, made.output
    return tmp_path / "small.onnx", public


def data_of(model: Path) -> Path:
    (found,) = model.parent.glob("small.onnx.*.data")
    return found


def change(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


def test_a_signed_model_verifies_with_its_weights(run: Run, signed: tuple[Path, Path]) -> None:
    model, public = signed
    result = run("verify", model, "--key", public, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["verdict"]["status"] == "good"
    assert told["signed"]["files"] == sorted([model.name, data_of(model).name])
    assert onnxprune.verify(model, public).files == tuple(told["signed"]["files"])


def test_the_tool_of_the_format_reads_our_signature(signed: tuple[Path, Path]) -> None:
    from model_signing.verifying import Config

    model, public = signed
    verifier = Config().use_elliptic_key_verifier(public_key=public).set_ignore_unsigned_files(True)
    verifier.verify(model.parent, model.with_name("small.onnx.sig"))


def move_weights(model: Path) -> None:
    """Let the model read a file that was not signed."""
    shutil.copy(data_of(model), model.parent / "other.data")
    proto = onnx.load(model, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "other.data" if entry.key == "location" else entry.value
    onnx.save(proto, model)


def forge(model: Path) -> None:
    """Change the model, and what the signature says of it."""
    change(model)
    path = model.with_name("small.onnx.sig")
    bundle = json.loads(path.read_text())
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"digest":"', b'"digest":"0')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement + b" ").decode()
    path.write_text(json.dumps(bundle))


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda model: change(model), "'small.onnx' changed since"),
        (lambda model: change(model, 0), "'small.onnx' changed since"),
        (lambda model: change(data_of(model)), ".data' changed since"),
        (lambda model: data_of(model).unlink(), ".data' is missing"),
        (move_weights, "changed since"),
        (lambda model: model.write_bytes(b"no model"), "changed since"),
        (forge, "its signature was changed"),
    ],
)
def test_what_was_touched_does_not_verify(
    run: Run, signed: tuple[Path, Path], tamper: Callable[[Path], None], told: str
) -> None:
    model, public = signed
    tamper(model)
    report = model.parent / "report.json"
    result = run("verify", model, "--key", public, "--report", report)
    assert result.exit_code == 3 and told in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and json.loads(report.read_text())["verdict"]["status"] == "failed"
    with pytest.raises(onnxprune.GateError):
        onnxprune.verify(model, public)


def test_another_key_and_another_model_do_not_verify(run: Run, signed: tuple[Path, Path]) -> None:
    model, public = signed
    _, other = keys.pair(model.parent, "other")
    assert "not signed with this key" in run("verify", model, "--key", other).stderr
    renamed = shutil.copy(model, model.with_name("renamed.onnx"))
    result = run("verify", renamed, "--key", public, "--signature", f"{model}.sig")
    assert result.exit_code == 3 and "the signature is of" in result.stderr


def test_a_signature_that_names_files_elsewhere_reads_none_of_them(run: Run, signed: tuple[Path, Path]) -> None:
    model, public = signed
    path = model.with_name("small.onnx.sig")
    bundle = json.loads(path.read_text())
    names = {"predicate": {"resources": [{"name": name} for name in ("../../outside", "/etc/hostname", model.name)]}}
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(names).encode()).decode()
    path.write_text(json.dumps(bundle))
    assert run("verify", model, "--key", public).exit_code == 3


@pytest.mark.parametrize("command", [["prune", *PRUNE], ["quantize", "--mode", "fp16", "--no-latency"], ["sparsify"]])
def test_every_method_signs(run: Run, model: Path, command: list[str]) -> None:
    private, public = keys.pair(model.parent)
    result = run(command[0], model, *command[1:], "--sign", private, "-o", model.with_name("out.onnx"))
    assert result.exit_code == 0, result.output
    assert run("verify", model.with_name("out.onnx"), "--key", public).exit_code == 0


def test_a_recipe_and_python_sign(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.store(networks.convnet(width=16), model)
    private, public = keys.pair(model.parent, password="open sesame")
    recipe = model.with_name("recipe.yaml")
    recipe.write_text(f"model: net.onnx\nsteps: [prune: {{compensate: none}}]\noutputs: {{sign: {private.name}}}\n")
    refused = run("run", recipe)
    assert refused.exit_code == 2 and "ONNXPRUNE_KEY_PASSWORD" in refused.stderr
    monkeypatch.setenv("ONNXPRUNE_KEY_PASSWORD", "open sesame")
    assert run("run", recipe).exit_code == 0
    assert run("verify", model.with_name("net-recipe.onnx"), "--key", public).exit_code == 0
    result = onnxprune.prune(model, compensate="none")
    onnxprune.save(result.model, model.with_name("python.onnx"), sign_with=private)
    assert onnxprune.verify(model.with_name("python.onnx"), public).files == ("python.onnx",)


def test_keys_that_do_not_sign_are_told_before_any_work(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = keys.pair(model.parent)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(65537, 2048)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (model.parent / "rsa.pem").write_bytes(made.private_bytes(pem, form, serialization.NoEncryption()))
    before = files(model.parent)
    for key in (public, model, model.parent / "rsa.pem", model.parent / "missing.pem"):
        result = run("prune", model, *PRUNE, "--sign", key, "-o", model.with_name("out.onnx"))
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert run("prune", model, *PRUNE, "--sign", private, "-o", private).exit_code == 2
    monkeypatch.setattr(signature, "find_spec", lambda name: None)
    assert "pip install 'onnxprune[sign]'" in run("prune", model, *PRUNE, "--sign", private).stderr
    assert "pip install 'onnxprune[sign]'" in run("verify", model, "--key", public).stderr
    assert files(model.parent) == before


def test_what_cannot_be_verified_is_told(run: Run, model: Path) -> None:
    private, public = keys.pair(model.parent)
    assert "cannot be read" in run("verify", model, "--key", public).stderr
    model.with_name("net.onnx.sig").write_text("{}")
    assert "no signature of a model" in run("verify", model, "--key", public).stderr
    assert "a private one only signs" in run("verify", model, "--key", private).stderr
    assert run("verify", model.with_name("missing.onnx"), "--key", public).exit_code == 2


def test_a_gate_that_fails_leaves_no_signature(run: Run, model: Path) -> None:
    private, _ = keys.pair(model.parent)
    out = model.with_name("out.onnx")
    result = run("prune", model, "--compensate", "none", "--min-cosine", "1", "--sign", private, "-o", out)
    assert result.exit_code == 3 and not any("out.onnx" in name for name in files(model.parent))


def test_the_last_good_model_of_a_recipe_is_signed(run: Run, model: Path) -> None:
    networks.store(networks.convnet(width=16), model)
    private, public = keys.pair(model.parent)
    recipe = model.with_name("recipe.yaml")
    steps = "[prune: {ratio: 0.25, compensate: none}, prune: {ratio: 0.5, compensate: none, gates: {min_cosine: 1.0}}]"
    outputs = f"{{output: good.onnx, keep_last_good: true, sign: {private.name}}}"
    recipe.write_text(f"model: net.onnx\nsteps: {steps}\noutputs: {outputs}\n")
    assert run("run", recipe).exit_code == 3
    assert run("verify", model.with_name("good.onnx"), "--key", public).exit_code == 0


def test_a_link_to_a_signed_model_verifies_beside_its_signature(run: Run, signed: tuple[Path, Path]) -> None:
    model, public = signed
    real = model.rename(model.with_name("real.onnx"))
    model.symlink_to(real.name)
    assert run("verify", model, "--key", public).exit_code == 0
    change(real)
    assert run("verify", model, "--key", public).exit_code == 3


def test_an_output_that_exists_keeps_its_signature_where_nothing_may_be_replaced(run: Run, model: Path) -> None:
    private, _ = keys.pair(model.parent)
    out = model.with_name("out.onnx")
    model.with_name("out.onnx.sig").write_text("mine")
    result = run("prune", model, *PRUNE, "--sign", private, "--no-clobber", "-o", out)
    assert result.exit_code == 2 and "out.onnx.sig" in result.stderr and not out.exists()


def test_keys_sign_where_what_certificates_need_is_missing(model: Path) -> None:
    private, public = keys.pair(model.parent)
    code = (
        "import sys; sys.modules['OpenSSL'] = None; from pathlib import Path; from onnxprune.graph.signature import *;"
        f"model, key = Path({str(model)!r}), Path({str(private)!r});"
        "signature_beside(model).write_text(sign(model, key, name=model.name));"
        f"print(verify(model, Path({str(public)!r})).files, 'OpenSSL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "('net.onnx',) False\n", done.stderr
