"""The bill of materials is valid CycloneDX and tells what the model was made from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune.report import bom
from tests import networks
from tests.cli.conftest import Run

pytest.importorskip("cyclonedx", reason="the extra bom is not installed")


ASKED = ("--ratio", 0.25, "--compensate", "lstsq", "--min-cosine", -1)


@pytest.fixture
def made(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict]:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    model = networks.store(networks.convnet(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((24, 3, 12, 12), np.float32))
    args = (*ASKED, "--data", tmp_path / "data.npz", "--threads", 1)
    result = run(model, *args, "-o", tmp_path / "small.onnx", "--bom", tmp_path / "bom.json")
    assert result.exit_code == 0, result.stderr
    return tmp_path, json.loads((tmp_path / "bom.json").read_text())


def test_it_names_result_source_data_versions_and_figures(made: tuple[Path, dict]) -> None:
    folder, found = made
    result = found["metadata"]["component"]
    assert result["type"] == "machine-learning-model" and result["name"] == "small.onnx"
    digest = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("small.onnx", "model.onnx")}
    (source,) = result["pedigree"]["ancestors"]
    assert [item["hashes"][0]["content"] for item in (result, source)] == [digest["small.onnx"], digest["model.onnx"]]
    assert json.loads(result["pedigree"]["notes"]) == [{"prune": {"ratio": 0.25, "compensate": "lstsq"}}]
    told = {item["name"]: item["value"] for item in result["properties"]}
    assert told["onnxprune:command"] == "prune" and "limit -1" in told["onnxprune:gate:min_cosine"]
    (data,) = found["components"]
    assert data["type"] == "data" and data["properties"] == [{"name": "onnxprune:samples", "value": "24"}]
    assert {"onnx", "onnxruntime", "onnxprune"} <= {tool["name"] for tool in found["metadata"]["tools"]["components"]}
    metrics = result["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {item["type"] for item in metrics} >= {"cosine", "sqnr_db"}
    assert found["metadata"]["timestamp"].startswith("2023-11-14T22:13")


def test_it_is_valid(made: tuple[Path, dict]) -> None:
    pytest.importorskip("jsonschema", reason="cyclonedx-python-lib[json-validation] is not installed")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made[1])) is None
    made[1]["metadata"]["component"]["type"] = "nonsense"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made[1])) is not None


def test_the_same_result_has_the_same_bill(run: Run, made: tuple[Path, dict]) -> None:
    folder, before = made
    args = (*ASKED, "--data", folder / "data.npz", "--threads", 2)
    assert run(folder / "model.onnx", *args, "-o", folder / "small.onnx", "--bom", folder / "bom.json").exit_code == 0
    after = json.loads((folder / "bom.json").read_text())
    assert after["serialNumber"] == before["serialNumber"] and after["components"] == before["components"]


def test_without_the_library_nothing_is_begun(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bom, "find_spec", lambda name: None)
    model = networks.store(networks.convnet(), tmp_path / "model.onnx")
    result = run(model, "--bom", tmp_path / "bom.json", "-o", tmp_path / "small.onnx")
    assert result.exit_code == 2 and "pip install 'onnxprune[bom]'" in result.stderr
    assert not (tmp_path / "small.onnx").exists()
