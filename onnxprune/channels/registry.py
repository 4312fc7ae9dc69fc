"""The table of rules: (domain, operator) -> function. One decorator fills it."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.channels.context import Context

Rule = Callable[[Context], None]

RULES: dict[tuple[str, str], Rule] = {}

MICROSOFT = "com.microsoft"


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for operators of one domain.

    Raises:
        ValueError: an operator has a rule already.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            if (domain, operator) in RULES:
                raise ValueError(f"{operator} of domain '{domain}' has a rule already")
            RULES[domain, operator] = function
        return function

    return register
