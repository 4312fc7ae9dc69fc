"""Change single tokens of the core by chance and count how many of these mutants the tests notice.

python -m benchmarks.mutants [--count 40] [--seed 0] [--first 0]

Every mutant lives in a copy of the checkout; the tests of its room run until the first one fails. A mutant that is
noticed by no test is printed with its line: it is equivalent, or a test is missing.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import subprocess
import sys
import tempfile
import tokenize
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = {
    "onnxprune/channels/solve.py": ["tests/test_micro.py", "tests/trimming", "tests/channels"],
    "onnxprune/channels/grouping.py": ["tests/test_micro.py", "tests/channels"],
    "onnxprune/channels/context.py": ["tests/test_micro.py", "tests/channels"],
    "onnxprune/channels/rewrite.py": ["tests/test_micro.py", "tests/channels"],
    "onnxprune/channels/mend.py": ["tests/test_micro.py", "tests/channels"],
    "onnxprune/channels/rules/indexing.py": ["tests/test_micro.py", "tests/channels"],
    "onnxprune/channels/rules/elementwise.py": ["tests/test_micro.py", "tests/channels"],
    "onnxprune/graph/view.py": ["tests/graph", "tests/test_micro.py"],
    "onnxprune/graph/count.py": ["tests/graph/test_count.py", "tests/operators", "tests/allocate"],
    "onnxprune/graph/fold.py": ["tests/graph", "tests/test_micro.py"],
    "onnxprune/compensate/ridge.py": ["tests/compensate/test_solve.py", "tests/compensate/test_refit.py"],
    "onnxprune/allocate/counts.py": ["tests/allocate", "tests/methods/test_prune.py"],
}
SWAPS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "+": "-",
    "-": "+",
    "*": "+",
    "//": "*",
    "and": "or",
    "or": "and",
    "min": "max",
    "max": "min",
    "True": "False",
    "False": "True",
    "0": "1",
    "1": "2",
    "any": "all",
    "all": "any",
    "&": "|",
    "|": "&",
}


@dataclass(frozen=True)
class Mutant:
    """One token of one file, and what takes its place."""

    file: str
    line: int
    column: int
    old: str

    def text(self, source: str) -> str:
        """Return the file with the token replaced."""
        lines = source.splitlines(keepends=True)
        line = lines[self.line - 1]
        lines[self.line - 1] = line[: self.column] + SWAPS[self.old] + line[self.column + len(self.old) :]
        return "".join(lines)


def candidates(file: str) -> list[Mutant]:
    """List the tokens of a file that may change: those of code that runs, not of imports, types or messages."""
    source = (ROOT / file).read_text()
    skipped = ("import", "from ", "def ", "raise", "class ", "@", '"', "#", "return f", "    Raises")
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start = token.line.strip()
        typed = ": " in token.line and " = " not in token.line and not start.endswith(":")
        if token.string in SWAPS and not start.startswith(skipped) and not typed and "->" not in token.line:
            found.append(Mutant(file, *token.start, token.string))
    return found


def draw(count: int, seed: int) -> list[Mutant]:
    """Return so many mutants, spread over the files."""
    rng = random.Random(seed)
    pools = {file: rng.sample(items, len(items)) for file in TESTS if (items := candidates(file))}
    found: list[Mutant] = []
    while len(found) < count:
        for pool in pools.values():
            if pool and len(found) < count:
                found.append(pool.pop())
    return found


def is_noticed(mutant: Mutant, folder: Path, seconds: float) -> bool:
    """Run the tests of a mutant's room until one fails; a run that does not end is noticed too."""
    target = folder / mutant.file
    source = target.read_text()
    target.write_text(mutant.text(source))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS[mutant.file]]
    try:
        done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, timeout=seconds)
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        target.write_text(source)


def _environment(folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Print every mutant with what became of it, and how many were noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="begin with this one")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one run")
    given = parser.parse_args()
    noticed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("onnxprune", "tests", "models", "pyproject.toml"):
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / part)
        chosen = draw(given.count, given.seed)[given.first :]
        for number, mutant in enumerate(chosen, given.first):
            found = is_noticed(mutant, folder, given.seconds)
            noticed += found
            line = (ROOT / mutant.file).read_text().splitlines()[mutant.line - 1].strip()
            what = f"{mutant.old} -> {SWAPS[mutant.old]} in {mutant.file}:{mutant.line}: {line}"
            print(f"{number:2} {'noticed' if found else 'ALIVE  '} {what}", flush=True)
    print(f"{noticed} of {len(chosen)} noticed")


if __name__ == "__main__":
    main()
