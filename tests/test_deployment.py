"""The container and the action: what they name exists, what is pinned is all there is, and the shell part runs."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PINS = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def test_every_dependency_is_pinned_with_what_it_needs_itself() -> None:
    if any(metadata.version(name) != PINS[name] for name in ("onnx", "numpy", "click")):
        pytest.skip("other versions than the pinned ones are installed, and they may need other packages")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [re.split(r"[<>=!~ ;\[]", text)[0] for text in project["dependencies"]]
    for name in needed:
        own = metadata.requires(name) or []
        needed += [re.split(r"[<>=!~ ;(\[]", text)[0] for text in own if "extra ==" not in text and ";" not in text]
    canonical = {name.lower().replace("_", "-") for name in needed}
    assert canonical <= set(PINS)


def test_the_dockerfile_copies_files_that_exist_and_are_sent() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    sent = (ROOT / ".dockerignore").read_text()
    assert len(copied) >= 5
    assert all((ROOT / name).exists() and f"!{name}\n" in sent for name in copied)


def test_the_action_hands_its_inputs_to_the_command_line_as_they_are(tmp_path: Path) -> None:
    step = ACTION["runs"]["steps"][-1]
    inputs = {name: str(item.get("default", "")) for name, item in ACTION["inputs"].items()}
    inputs |= {"recipe": "a b.yaml", "model": "$(touch executed).onnx", "arguments": "--threads\n1\n"}
    program = tmp_path / "onnxprune/bin/onnxprune"
    program.parent.mkdir(parents=True)
    summary, page = tmp_path / "onnxprune-summary.md", tmp_path / "page.md"
    page.write_text("before\n")
    told = f"open({str(summary)!r}, 'w').write('verdict')"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n{told}\nsys.exit(3)\n")
    program.chmod(0o755)
    names = {key: re.fullmatch(r"\$\{\{ inputs\.([\w-]+) \}\}", value)[1] for key, value in step["env"].items()}  # type: ignore[index]
    environment = {
        **os.environ,
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(page),
        **{key: inputs[name] for key, name in names.items()},
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", step["run"]], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    given = ["--report", "onnxprune-report.html", "--threads", "1", "--summary", str(summary)]
    assert done.stdout.strip() == str(["run", "a b.yaml", "--model", "$(touch executed).onnx", *given]), done.stderr
    assert done.returncode == 3 and page.read_text() == "before\nverdict"
    assert not (tmp_path / "executed").exists() and "${{" not in step["run"]


def test_the_install_step_of_the_action_names_files_that_exist() -> None:
    text = ACTION["runs"]["steps"][1]["run"]
    assert "requirements.txt" in shlex.split(text.splitlines()[1])[-1] and (ROOT / "requirements.txt").exists()


RELEASE = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())


def test_the_release_tries_every_interpreter_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {text.split(" :: ")[-1] for text in project["classifiers"] if re.search(r"Python :: 3\.\d+$", text)}
    assert set(RELEASE["jobs"]["try"]["strategy"]["matrix"]["python"]) == named
    lowest = min(named, key=lambda text: int(text.split(".")[1]))
    assert project["requires-python"] == f">={lowest}"


def test_nothing_is_published_that_was_not_tried_and_only_that_job_may_write() -> None:
    jobs = RELEASE["jobs"]
    assert jobs["publish"]["needs"] == "try" and jobs["try"]["needs"] == "build"
    assert RELEASE["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    uses = [step.get("uses", "") for step in jobs["publish"]["steps"]]
    order = [next(place for place, use in enumerate(uses) if part in use) for part in ("attest", "publish")]
    assert order == sorted(order)
    for job in jobs.values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "a name of a tag is no text of a script"
            script = step.get("run", "").split()[0] if step.get("run", "").startswith(".ci/") else ".ci/run"
            assert os.access(ROOT / script, os.X_OK)


def test_the_sdist_takes_what_its_tests_read() -> None:
    told = (ROOT / "MANIFEST.in").read_text()
    for name in ("tests", "models", "docs", "benchmarks", "recipes", ".ci", ".github"):
        assert f"graft {name}\n" in told and (ROOT / name).exists()
    assert all((ROOT / name).exists() for name in re.findall(r"(?m)^include (.*)$", told)[0].split())
