"""The keywords of the Python functions, onnxprune/keywords.py, written from the option classes.

python -m tests.job.spelled         write it again

Type checkers and editors need them spelled out, so the file is written and a test holds it to the classes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from onnxprune.job.methods import METHODS
from onnxprune.methods.candidate_options import CandidateOptions
from onnxprune.option import options_of, said

FILE = Path(__file__).parent.parent.parent / "onnxprune" / "keywords.py"
HEAD = '''"""The options of every method as keywords of the functions in `onnxprune.api`, so that editors complete them.

Written by `python -m tests.job.spelled` from the option classes, which say what they mean and check them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import onnx

from onnxprune.methods.trimming.spellings import Spec, Value
from onnxprune.types import Array
'''
WIDER = {"tuple[str, ...]": "str | tuple[str, ...] | list[str]", "Path | None": "str | Path | None"}
"""What functions take besides the type of the field, which the class makes of it."""


def text() -> str:
    """Return the file."""
    kinds = [CandidateOptions, *(METHODS[name].options for name in METHODS)]
    return "\n\n".join([HEAD, *(f"{_keywords(kind)}\n" for kind in kinds)])


def _keywords(kind: type) -> str:
    """Return the class of keywords of a class of options; what is an argument of the function is none of them."""
    name, base = kind.__name__.replace("Options", "Kwargs"), ""
    fields = options_of(kind)
    if CandidateOptions in kind.__mro__[1:]:
        base = "CandidateKwargs"
        common = {field.name for field in dataclasses.fields(CandidateOptions)}
        fields = [field for field in fields if field.name not in common]
    lines = [f"    {field.name}: {_type(field)}" for field in fields if not said(field).argument]
    return "\n".join(
        [f"class {name}({base or 'TypedDict'}, total=False):", f'    """See `{kind.__name__}`."""', "", *lines]
    )


def _type(field: dataclasses.Field) -> str:
    return said(field).keyword or WIDER.get(str(field.type), str(field.type))


if __name__ == "__main__":
    FILE.write_text(text())
