"""What is asked of carrying out a saved plan, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from onnxprune.channels.plan import Plan
from onnxprune.errors import UsageError
from onnxprune.methods.compensate_options import SUBSTITUTE, SUBSTITUTES, CompensateOptions
from onnxprune.option import documented, option


@documented
@dataclass(frozen=True, kw_only=True)
class ApplyOptions(CompensateOptions):
    """Options of `apply`. Shapes of inputs, heads and positions inside heads are as they were when the plan was made.

    Without data, what stays is refitted only where `compensate` asks for it, to made-up inputs.
    """

    section: ClassVar[str] = "What to do"

    plan: Path | Plan | None = option(
        None, "What to remove, or the file that it was saved in.", metavar="PLAN.json", argument=True, untold=True
    )
    same_structure: bool = option(
        False,
        "Apply it to the same network of other weights, as after another training: names, shapes, operators are equal.",
        untold=True,
    )
    force: bool = option(False, "Apply it to another file too, where the tensors are the same.", untold=True)

    stats: Path | None = option(
        None,
        "Statistics that onnxprune stats collected of this model: without --data the refit comes from them.",
        metavar="FILE",
        untold=True,
    )
    substitute: str | None = option(None, SUBSTITUTE, choices=SUBSTITUTES)

    def read_plan(self) -> Plan:
        """Return the plan.

        Raises:
            UsageError: there is none, or its file cannot be read.
        """
        if isinstance(self.plan, Plan):
            return self.plan
        if self.plan is None:
            raise UsageError("apply needs a plan: give the file that a prune saved it in.")
        try:
            return Plan.from_json(self.plan.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"the plan '{self.plan}' does not exist.") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"the plan '{self.plan}' is not a text file; give one that a prune saved.") from error
        except OSError as error:
            raise UsageError(f"the plan '{self.plan}' cannot be read ({error.strerror or error}).") from error
