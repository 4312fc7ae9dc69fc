"""Text of a recipe -> typed values. Only plain data are read, and every complaint says where it stands.

Values are built by the type hints of dataclasses, so that an option of a method can be given as soon as it exists.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from onnxprune.errors import UsageError
from onnxprune.option import bytes_of, said

LARGEST_CHARACTERS = 1 << 20
DEEPEST = 20
_PLAIN = "tag:yaml.org,2002:"
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
Node = Any
"""`yaml.nodes.Node`, of a package without types."""
Value = TypeVar("Value")


class Bytes(int):
    """The type of a number that may be spelt 4GB."""


class Text:
    """A recipe as it was written.

    Raises:
        UsageError: it is not YAML or JSON, or has what a recipe does not need: tags, aliases, several documents.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        if len(text) > LARGEST_CHARACTERS:
            raise UsageError(f"{name}: more than {LARGEST_CHARACTERS} characters; a recipe is a short text.")
        text = text.replace("\t", " ") if text.lstrip()[:1] == "{" else text
        try:
            _check_plain(text, name)
            root = yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            problem = error.problem or error.context
            raise UsageError(f"{name}{line}: not readable as YAML or JSON: {problem}.") from error
        except yaml.YAMLError as error:
            raise UsageError(f"{name}: not readable as YAML or JSON: {type(error).__name__}.") from error
        if root is None:
            raise UsageError(f"{name}: is empty; give model and steps.")
        self.root: Node = root

    def error(self, node: Node, text: str) -> UsageError:
        """Return the complaint about a place."""
        return UsageError(f"{self.name}:{node.start_mark.line + 1}: {text}")

    def pairs(self, node: Node, what: str) -> dict[str, tuple[Node, Node]]:
        """Return name -> (node of the name, node of its value).

        Raises:
            UsageError: it is no mapping, or has a name twice.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} is {shown(node)}; give names and values (name: value).")
        found: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(key, f"{what}: a name is {shown(key)}; give a word.")
            if key.value in found:
                raise self.error(key, f"{what} has '{key.value}' twice; leave one out.")
            found[key.value] = (key, value)
        return found

    def known(self, key: Node, names: Iterable[str], what: str) -> None:
        """Refuse a name that is none of `names`, with the nearest that is.

        Raises:
            UsageError: it is unknown.
        """
        names = list(names)
        if key.value not in names:
            close = difflib.get_close_matches(key.value, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}."
            raise self.error(key, f"{what} has no '{key.value}'; {hint}")

    def build(self, kind: type[Value], node: Node, what: str, given: Mapping[str, object] | None = None) -> Value:
        """Return a dataclass from a mapping.

        Args:
            given: values of fields that the mapping does not name.

        Raises:
            UsageError: a name is unknown or missing, a value is of another type, or the class refuses it.
        """
        hints = field_types(kind)
        values = dict(given or {})
        pairs = self.pairs(node, what)
        for name, (key, value) in pairs.items():
            name = name.replace("-", "_")
            if name not in hints:
                self.known(key, hints, what)
            values[name] = self.convert(hints[name], value, f"{what}: {name}")
        for field in fields(kind):  # type: ignore[arg-type]  # only dataclasses come here
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise self.error(node, f"{what} lacks '{field.name}'.")
        try:
            return kind(**values)
        except UsageError as error:
            raise self.blamed(error, pairs, node, f"{what}: ") from error

    def blamed(
        self, error: UsageError, pairs: Mapping[str, tuple[Node, Node]], otherwise: Node, what: str = ""
    ) -> UsageError:
        """Return what a class of options complains about, at the option that it names."""
        return self.error(_blamed(str(error), pairs, otherwise), f"{what}{error}")

    def convert(self, hint: Any, node: Node, what: str) -> Any:
        """Return the value of a node as a type.

        Raises:
            UsageError: it is of another type.
        """
        if not node.tag.startswith(_PLAIN) or node.tag.startswith(f"{_PLAIN}python"):
            raise self.error(node, f"{what} has the tag {node.tag}; a recipe holds plain values only.")
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (Union, types.UnionType):
            return self._convert_one_of(inner, node, what)
        if origin is tuple:
            return self._convert_list(inner, node, what)
        if origin is not None and issubclass(origin, Mapping):
            pairs = self.pairs(node, what)
            return {name: self.convert(inner[1], value, f"{what}: {name}") for name, (_, value) in pairs.items()}
        if is_dataclass(hint):
            return self.build(hint, node, what)  # type: ignore[arg-type]  # a dataclass, no instance of one
        return self._convert_scalar(hint, node, what)

    def _convert_one_of(self, kinds: tuple[object, ...], node: Node, what: str) -> object:
        if type(None) in kinds and node.tag == f"{_PLAIN}null":
            return None
        rest = [kind for kind in kinds if kind is not type(None)]
        for kind in rest[:-1]:
            try:
                return self.convert(kind, node, what)
            except UsageError:
                continue
        return self.convert(rest[-1], node, what)

    def _convert_list(self, inner: tuple[object, ...], node: Node, what: str) -> tuple[object, ...]:
        if isinstance(node, yaml.ScalarNode) and len(inner) == 2 and inner[1] is ...:
            return (self.convert(inner[0], node, what),)
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(node, f"{what} is {shown(node)}; give a list [a, b].")
        if len(inner) == 2 and inner[1] is ...:
            return tuple(self.convert(inner[0], item, what) for item in node.value)
        if len(node.value) != len(inner):
            raise self.error(node, f"{what} has {len(node.value)} values; give {len(inner)}.")
        return tuple(self.convert(kind, item, what) for kind, item in zip(inner, node.value, strict=True))

    def _convert_scalar(self, hint: Any, node: Node, what: str) -> Any:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}.get(hint, "a text")
        if not isinstance(node, yaml.ScalarNode) or node.tag == f"{_PLAIN}null":
            raise self.error(node, f"{what} is {shown(node)}; give {wanted}.")
        if hint is Bytes:
            return self._convert_bytes(node, what)
        quoted = node.style in ("'", '"')
        try:
            if hint is bool and not quoted and node.value.lower() in (*_TRUE, *_FALSE):
                return node.value.lower() in _TRUE
            if hint in (int, float) and not quoted:
                return hint(node.value.replace("_", "x"))
        except ValueError:
            pass
        if hint in (str, Path, Any):
            return hint(node.value) if hint is not Any else yaml.SafeLoader("").construct_object(node)
        raise self.error(node, f"{what} is {shown(node)}; give {wanted}.")

    def _convert_bytes(self, node: Node, what: str) -> int:
        """Return a whole number, or what a text such as 4GB stands for."""
        if not node.tag.endswith(":str"):
            return int(self._convert_scalar(int, node, what))
        try:
            return bytes_of(node.value)
        except ValueError:
            raise self.error(node, f"{what} '{node.value}' is not like 4GB or 512MB (from 1MB).") from None


def field_types(kind: type) -> dict[str, object]:
    """Return the types of the fields of a dataclass; what stands in the class besides is no field."""
    hints = typing.get_type_hints(kind)
    return {f.name: Bytes | None if said(f).spelt == "bytes" else hints[f.name] for f in fields(kind)}


def _check_plain(text: str, name: str) -> None:
    """Refuse what makes a small text large or deep."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.events.AliasEvent):
            raise UsageError(f"{name}: has aliases (*name); write the value out.")
        depth += isinstance(event, yaml.events.CollectionStartEvent)
        depth -= isinstance(event, yaml.events.CollectionEndEvent)
        if depth > DEEPEST:
            raise UsageError(f"{name}:{event.start_mark.line + 1}: more than {DEEPEST} lists and mappings in another.")


def shown(node: Node) -> str:
    """Return a node in a few words."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if node.tag == f"{_PLAIN}null":
        return "empty"
    text = node.value if len(node.value) < 40 else f"{node.value[:37]}.."
    return f"the text '{text}'" if node.tag == f"{_PLAIN}str" else text


def _blamed(text: str, pairs: Mapping[str, tuple[Node, Node]], otherwise: Node) -> Node:
    """Return the first name that a complaint has among its first words: options begin it with the name."""
    start = text.replace("--", "").split()[:3]
    spelt = {name.replace("_", "-"): key for name, (key, _) in pairs.items()}
    return next((spelt[word.replace("_", "-")] for word in start if word.replace("_", "-") in spelt), otherwise)
