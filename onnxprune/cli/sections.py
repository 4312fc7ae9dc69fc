"""Help of a command: its options in sections, and an example at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

OWN, PRINTED = "What to do", "What is printed"
"""Where an option stands that says no section, and where those stand that all commands have."""

EXAMPLES = {
    "apply": ("onnxprune apply model.onnx plan.json -o again.onnx", "data.md"),
    "bench": ("onnxprune bench model.onnx small.onnx --threads 1", "faq.md"),
    "diff": ("onnxprune diff model.onnx small.onnx --report diff.html", "reports.md"),
    "explain": ("onnxprune explain model.onnx conv1 --ratio 0.4", "reports.md"),
    "factorize": ("onnxprune factorize model.onnx --params 0.7 --data calib.npz", "factorize.md"),
    "finetune": ("onnxprune finetune model.onnx small.onnx --data calib.npz --effort 10m", "finetune.md"),
    "inspect": ("onnxprune inspect model.onnx", "faq.md"),
    "prune": ("onnxprune prune model.onnx --macs 0.5 --data calib.npz -o half.onnx", "index.md"),
    "quantize": ("onnxprune quantize model.onnx --mode static --data calib.npz", "quantize.md"),
    "run": ("onnxprune run cnn-cpu-fast --model model.onnx --data calib.npz -o fast.onnx", "ci.md"),
    "sensitivity": ("onnxprune sensitivity model.onnx --data calib.npz --samples 16", "data.md"),
    "sparsify": ("onnxprune sparsify model.onnx --pattern 2:4 --data calib.npz", "sparsify.md"),
    "stats": ("onnxprune stats model.onnx --data shard1/ -o shard1.stats", "cluster.md"),
    "trim": ("onnxprune trim model.onnx --keep logits=0-3 -o four-classes.onnx", "trim.md"),
    "tune": ("onnxprune tune model.onnx --data calib.npz --min-agreement 0.98 -o small.onnx", "data.md"),
    "verify": ("onnxprune verify small.onnx --key public.pem", "reports.md"),
    "validate": ("onnxprune validate model.onnx small.onnx --data calib.npz", "validate.md"),
}
"""Command -> how it is used, and the page of docs/ that tells more."""


class SectionedOption(click.Option):
    """An option with a section; it lists the values there are when help is asked for, and not before."""

    def __init__(
        self, *args: Any, section: str = PRINTED, listed: Callable[[], Iterable[str]] | None = None, **given: Any
    ) -> None:
        super().__init__(*args, **given)
        self.section = section
        self.listed = listed

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        found = super().get_help_record(ctx)
        if self.listed is None or found is None:
            return found
        return found[0], f"{found[1]} One of {', '.join(self.listed())}."


def _title(param: click.Parameter) -> str:
    if isinstance(param, SectionedOption):
        return param.section
    return PRINTED if "--help" in param.opts else OWN


class SectionedCommand(click.Command):
    """A command whose help has sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options under the titles of their sections, in the order in which these come up."""
        titles: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                titles.setdefault(_title(param), []).append(record)
        titles[PRINTED] = titles.pop(PRINTED)
        for title, records in titles.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """End with an example and where more stands."""
        text, page = EXAMPLES[str(ctx.info_name)]
        with formatter.section("Example"):
            formatter.write_text(text)
        formatter.write_paragraph()
        formatter.write_text(f"More: docs/{page}")
