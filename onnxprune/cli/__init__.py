"""The command line. Nothing heavy is imported here: `onnxprune --help` answers at once."""

import signal
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, watched by a process of its own, and end with its exit code.

    Until its own handlers stand, an interruption ends the process as it does any other program: Python's handler would
    print where the imports had come to.
    """
    if args is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from onnxprune.cli.group import main as run

    run(args)


__all__ = ["main"]
