"""onnxprune apply: a saved plan again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command


def _prepare(given: dict[str, Any], model: Path, outputs: Any) -> dict[str, Any]:
    given["plan"] = given.pop("plan_file")
    return {}


command = method_command(
    "apply",
    """Apply a plan that was saved with --plan to the model that it was made for.

A plan says what to remove. What stays is refitted to --data; without data it stays as it is (unless --compensate asks
for made-up inputs), also where the prune that made the plan refitted it.""",
    click.argument("plan_file", type=options.PATH, metavar="PLAN.json"),
    click.option("--force", is_flag=True, help="Apply it to another file too, where the tensors are the same."),
    options.attention,
    options.compensation,
    options.memory,
    options.verify,
    default="MODEL-pruned.onnx",
    prepare=_prepare,
)
