"""Laws of all commands: one JSON document whatever else is asked for, and options that are described everywhere."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import click
import pytest
import yaml

import onnxprune
from onnxprune import keywords
from onnxprune.allocate import measures
from onnxprune.cli.group import Commands, cli
from onnxprune.cli.sections import EXAMPLES
from onnxprune.compensate import compensate, terms
from onnxprune.graph.signature import sign
from onnxprune.job.gates import Gates
from onnxprune.job.methods import METHODS
from onnxprune.job.outputs import Outputs
from onnxprune.job.run import Run as JobRun
from onnxprune.methods import prune_options
from onnxprune.methods.sparsity import shares
from onnxprune.option import said
from onnxprune.score import criteria
from onnxprune.score.spelled import spelled_names
from onnxprune.statistics.image_options import ImageOptions
from tests import keys, networks
from tests.cli import page
from tests.cli.conftest import Run
from tests.job import spelled

COMMANDS = page.names()
VALUES = {
    "--seed": "1",
    "--samples": "8",
    "--threads": "1",
    "--provider": "CPUExecutionProvider",
    "--input-shape": "x:2,3,12,12",
    "--min-cosine": "-1",
    "--min-sqnr": "-99",
    "--min-agreement": "0",
    "--max-drop": "9",
    "--memory": "64MB",
    "--report": "report.json",
    "--plan": "plan-written.json",
    "--eval": "value.py:value",
    "--data": "data/x.npz",
    "--judge-data": "data/x.npz",
    "-v": None,
    "--no-strict": None,
    "--no-cache": None,
    "--no-clobber": None,
    "--no-provenance": None,
    "--verify": None,
    "--no-latency": None,
}
"""Options that several commands share, with a value each."""
OWN = {
    "apply": ["net.onnx", "plan.json"],
    "bench": ["net.onnx", "--runs", "3"],
    "diff": ["net.onnx", "other.onnx"],
    "explain": ["net.onnx", "conv1"],
    "factorize": ["net.onnx"],
    "finetune": ["net.onnx", "net.onnx", "--steps", "1"],
    "inspect": ["net.onnx"],
    "prune": ["net.onnx", "--compensate", "none"],
    "quantize": ["net.onnx", "--mode", "fp16"],
    "run": ["recipe.yaml"],
    "sensitivity": ["net.onnx"],
    "sparsify": ["net.onnx"],
    "stats": ["net.onnx"],
    "trim": ["net.onnx", "--keep", "logits=0-4"],
    "tune": ["net.onnx", "--compensate", "none", "--step", "0.5", "--finest", "0.5"],
    "validate": ["net.onnx", "net.onnx"],
    "verify": ["net.onnx", "--key", "public.pem"],
}


@pytest.fixture
def desk(run: Run, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that commands read."""
    monkeypatch.chdir(model.parent)
    networks.store(networks.convnet(width=16), model)
    (model.parent / "value.py").write_text("def value(model):\n    return 1.0\n")
    (model.parent / "recipe.yaml").write_text("model: net.onnx\nsteps: [prune: {compensate: none}]\n")
    return model.parent


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_with_every_common_option(run: Run, desk: Path, command: str) -> None:
    if command in ("apply", "diff"):
        run("prune", "net.onnx", "--compensate", "none", "--no-verify", "--plan", "plan.json", "-o", "other.onnx")
    if command == "verify":
        private, _ = keys.pair(desk)
        (desk / "key-public.pem").rename(desk / "public.pem")
        (desk / "net.onnx.sig").write_text(sign(desk / "net.onnx", private, name="net.onnx"))
    known = Commands().get_command(click.Context(cli), command)
    assert known is not None
    flags = [flag for option in known.params for flag in (*option.opts, *option.secondary_opts)]
    values = {**VALUES, "--plan": "plan.json"} if command == "diff" else VALUES  # which reads it
    common = [word for flag, value in values.items() if flag in flags for word in (flag, value) if word is not None]
    result = run(command, *OWN[command], *common, "--json")
    assert result.exit_code == (1 if command == "diff" else 0), result.stderr  # 1: they differ
    assert json.loads(result.stdout)["command"] == command
    if "--print-recipe" in flags:
        again = [*OWN[command], *(word for word in common if word != "--no-clobber"), "--print-recipe"]
        assert json.loads(run(command, *again, "--json").stdout) == yaml.safe_load(run(command, *again).stdout)


def test_a_gate_that_fails_leaves_one_json_document(run: Run, desk: Path) -> None:
    result = run("prune", "net.onnx", "--compensate", "none", "--min-cosine", "1", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["verdict"]["status"] == "failed"


def test_the_page_of_options_is_what_the_commands_say() -> None:
    """Where it is not: python -m tests.cli.page."""
    assert page.FILE.read_text() == page.text()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_option_of_a_method_is_on_the_command_line_in_recipes_in_python_and_in_the_docs(name: str) -> None:
    kind = METHODS[name].options
    command = Commands().get_command(click.Context(cli), name)
    assert command is not None
    asked = {param.name.partition("_")[2] for param in command.params if param.name}
    keys = typing.get_type_hints(getattr(keywords, kind.__name__.replace("Options", "Kwargs")))
    signature = {*keys, *inspect.signature(getattr(onnxprune, name)).parameters}
    hints = typing.get_type_hints(kind)  # what a recipe reads values by
    for field in dataclasses.fields(kind):
        about = said(field)
        assert about.help, field.name
        assert about.found or field.name in asked, field.name
        assert field.name in signature, field.name
        assert field.name in hints, field.name
        assert re.search(rf"^    {field.name}: ", kind.__doc__ or "", re.MULTILINE), field.name


@pytest.mark.parametrize("kind", [Gates, Outputs, JobRun, ImageOptions])
def test_what_jobs_have_in_common_says_what_it_is(kind: type) -> None:
    assert [field.name for field in dataclasses.fields(kind) if not said(field).help] == []


def test_the_keywords_of_functions_are_those_of_the_option_classes() -> None:
    """Where they are not: python -m tests.job.spelled."""
    assert spelled.FILE.read_text() == spelled.text()


def test_choices_are_those_that_the_methods_know() -> None:
    """Option classes load nothing heavy, so they spell the names that the tables of methods have."""
    choices = {(name, f.name): said(f).choices for name in METHODS for f in fields(name)}
    assert choices["sparsify", "scope"] == tuple(shares.SCOPES)
    assert choices["finetune", "criterion"] == terms.CRITERIA
    assert choices["prune", "compensate"] == compensate.MODES
    assert (*measures.MEASURES, "latency", "peak_memory") == prune_options.TARGETS
    assert spelled_names() == criteria.names()


def test_the_command_line_starts_without_what_is_heavy() -> None:
    """Every class of options is read for --help, none of them may import numpy or onnx."""
    code = (
        "import sys; from onnxprune.job.methods import METHODS; from onnxprune.cli.group import cli;"
        "[method.options for method in METHODS.values()];"
        "cli.main(['prune', '--help'], standalone_mode=False);"
        "print([name for name in ('numpy', 'onnx', 'onnxruntime', 'scipy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_what_jobs_have_in_common_is_on_the_page_of_options() -> None:
    names = [item.name for kind in (Gates, Outputs, JobRun) for item in dataclasses.fields(kind)]
    shown = page.FILE.read_text()
    parts = {
        "images": "--image-size",
        "evaluation": "--eval",
        "input_shapes": "--input-shape",
        "intermediates": "--keep ",
    }
    spelt = {name: parts.get(name, f"--{name.replace('_', '-')}") for name in names}
    assert [name for name, flag in spelt.items() if flag not in shown and f"--no-{flag[2:]}" not in shown] == []


def test_every_method_has_its_keywords_its_options_and_its_result_in_the_package() -> None:
    for name in METHODS:
        assert hasattr(keywords, f"{name.capitalize()}Kwargs")
        assert callable(getattr(onnxprune, name))
        assert METHODS[name].options.__name__ in onnxprune.__all__
        assert inspect.get_annotations(getattr(onnxprune, name))["return"] in onnxprune.__all__


def fields(name: str) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(METHODS[name].options)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_every_option_in_one_section_and_ends_with_an_example(name: str) -> None:
    """The example is a command line of this command as it stands, and the page that it names is there."""
    parent = click.Context(cli, info_name="onnxprune")
    command = Commands().get_command(parent, name)
    assert command is not None
    shown = command.get_help(click.Context(command, info_name=name, parent=parent))
    sections = "  -" + shown.partition(":\n  -")[2]
    for option in command.params:
        if isinstance(option, click.Option):
            found = re.findall(rf"^  (?:-\w, )?{option.opts[-1]}(?![\w-])", sections, re.MULTILINE)
            assert len(found) == 1, option.opts
    text, where = EXAMPLES[name]
    assert text in " ".join(shown.split()) and (Path(page.FILE).parent / where).is_file()
    words = text.split()
    assert words[:2] == ["onnxprune", name]
    with command.make_context(name, words[2:]) as context:
        assert context.params
