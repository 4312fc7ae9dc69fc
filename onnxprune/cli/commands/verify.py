"""onnxprune verify: whether a model is what was signed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.errors import GateError


@click.command(cls=SectionedCommand)
@options.model
@click.option("--key", type=options.PATH, required=True, metavar="FILE", help="Public key (PEM) of who signed it.")
@click.option(
    "--signature", type=options.PATH, metavar="FILE", help="The signature [default: MODEL.sig, beside MODEL]."
)
@options.report
@options.screen
def command(model: Path, key: Path, signature: Path | None, report: Path | None, screen: Screen) -> None:
    """Show whether a model and the files of its weights are as they were signed (--sign).

    Ends with 0 where they are, with 3 where anything changed or the key is another, with 2 where there is nothing to
    read. Signatures are those of OpenSSF Model Signing.
    """
    from onnxprune.evidence.verdict import Verdict
    from onnxprune.graph.external import WeightFiles
    from onnxprune.graph.signature import signature_beside, verify

    reads: dict[str, Iterable[Path]] = {
        "the model": [model],
        "weights of the model": WeightFiles(model),
        "the key": [key],
        "the signature": [signature or signature_beside(model)],
    }
    failed = None
    with telling("verify", screen, report, reads) as record, screen.stage(record, "verify", "reading the files"):
        try:
            found = verify(model, key, signature)
        except GateError as error:
            failed, verdict = error, Verdict("failed", (str(error),))
        else:
            files = ", ".join(f"'{name}'" for name in found.files)
            record.details["signed"] = {"files": list(found.files), "signature": found.signature.name}
            verdict = Verdict("good", (f"{files}: as signed.",))
        record.details["verdict"] = verdict.to_json()
    if failed is not None:
        raise failed
