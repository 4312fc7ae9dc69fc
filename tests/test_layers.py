"""Imports point down the list of rooms, never up."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "onnxprune"
ROOMS = [
    {"cli"},
    {"api"},
    {"recipe"},
    {"job", "keywords"},
    {"methods"},
    {"evidence", "report", "differences"},
    {"allocate"},
    {"score"},
    {"compensate"},
    {"statistics"},
    {"channels"},
    {"hardware", "devices"},
    {"graph"},
    {"operators"},
    {"cluster"},
    {"files", "processes"},
    {"option"},
    {"errors", "types", "version"},
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
SIDEWAYS = {("statistics", "evidence")}
"""Synthetic calibration data are the random inputs of the validation."""


def imports() -> list[tuple[str, str, str]]:
    """List (file, its room, the room it imports) of the whole package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("onnxprune."):
                found.append((str(path.relative_to(PACKAGE)), room, node.module.split(".")[1]))
    return found


def test_every_room_has_a_level() -> None:
    assert {room for _, own, other in imports() for room in (own, other)} <= set(LEVEL)


def test_imports_point_down() -> None:
    upward = [
        f"{path} imports {other}"
        for path, own, other in imports()
        if LEVEL[other] < LEVEL[own] and (own, other) not in SIDEWAYS
    ]
    assert upward == []


def files() -> dict[str, Path]:
    """Return module -> file of the whole package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph_of_files() -> dict[str, set[str]]:
    """Return module -> modules that it imports, at the top, for types alone, or late inside a function."""
    modules = files()
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onnxprune"):
                inside = (f"{node.module}.{alias.name}" for alias in node.names)
                found[name] |= {target if target in modules else str(node.module) for target in inside}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules that import each other in a circle, or in one that they lead to."""
    left = {name: set(targets) - {name} for name, targets in graph.items()}
    while ends := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ends:
            del left[name]
    return sorted(left)


def test_no_file_imports_itself_through_others() -> None:
    """Types alone and late imports count, too."""
    assert circle(graph_of_files()) == []


def test_a_circle_of_files_would_be_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == ["a", "b", "c", "d"]


def test_the_package_asserts_nothing() -> None:
    """An assertion is for tests: with -O it is gone, and its error is none of ours."""
    asserting = [
        f"{path.name}:{node.lineno}"
        for path in files().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert asserting == []


def test_names_of_classes_are_unique() -> None:
    """Who reads a name knows what it is."""
    found: dict[str, list[str]] = {}
    for name, path in files().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(name)
    assert {name: homes for name, homes in found.items() if len(homes) > 1} == {}


def test_names_of_files_are_unique() -> None:
    """But for commands, which are named like what they run, and rules and descriptions of one family of operators."""
    families = ("onnxprune.cli.commands.", "onnxprune.channels.rules.", "onnxprune.operators.")
    leaves = [path.stem for name, path in files().items() if not name.startswith(families) and path.stem[:2] != "__"]
    assert sorted({leaf for leaf in leaves if leaves.count(leaf) > 1}) == []


def test_no_room_is_named_like_a_function_of_the_package() -> None:
    import onnxprune

    rooms = {name.split(".")[1] for name in files() if "." in name}
    assert rooms & set(onnxprune.__all__) == set()


def test_what_the_type_checker_is_told_to_ignore_has_a_reason() -> None:
    silent = [
        f"{path.name}:{number}"
        for path in files().values()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "# type: ignore" in line and "# " not in line.partition("# type: ignore")[2]
    ]
    assert silent == []


def test_few_signatures_say_any() -> None:
    """What comes from untyped packages or may be anything is all that is left."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in files().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and "Any" in _words(node)
    ]
    assert len(found) < 60, found


def _words(function: ast.FunctionDef) -> set[str]:
    """Return the names in the types of a signature."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    types = [*(item.annotation for item in arguments if item is not None), function.returns]
    return {node.id for kind in types if kind is not None for node in ast.walk(kind) if isinstance(node, ast.Name)}
