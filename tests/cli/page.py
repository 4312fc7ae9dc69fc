"""The page of all options, docs/options.md, written from the commands themselves.

python -m tests.cli.page            write it again
"""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.group import Commands, cli

FILE = Path(__file__).parent.parent.parent / "docs" / "options.md"
HEAD = """# Options of all commands

Written by `python -m tests.cli.page` from what `onnxprune COMMAND --help` says. In recipes and in Python an option has
its name with underscores, without the dashes: `--min-channels 8` is `min_channels: 8` and `min_channels=8`.
"""


def names() -> list[str]:
    """Return the names of all commands."""
    return Commands().list_commands(cli.make_context("onnxprune", ["--help"], resilient_parsing=True))


def text() -> str:
    """Return the page."""
    parent = click.Context(cli, info_name="onnxprune", max_content_width=1000)
    group = Commands()
    parts = [HEAD]
    for name in names():
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        usage = " ".join(command.collect_usage_pieces(context)).removeprefix("[OPTIONS] ")
        records = [item.get_help_record(context) for item in command.params if isinstance(item, click.Option)]
        rows = [f"| `{flags.replace('|', chr(92) + '|')}` | {about} |" for flags, about in filter(None, records)]
        about = " ".join((command.help or "").split())
        parts.append(
            "\n".join(
                [f"## onnxprune {name} {usage}", "", about, "", "| option | what it does |", "| --- | --- |", *rows, ""]
            )
        )
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(text())
