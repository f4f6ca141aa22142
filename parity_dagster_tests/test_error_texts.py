"""What an error says is for people: no part of the program decides anything by its words."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import parity_dagster

PACKAGE = Path(parity_dagster.__path__[0])
TEXTS = {"args", "message", "text", "detail", "reason", "strerror", "message_primary", "message_detail"}
"""Attributes of an error that hold its words; `status`, `name`, `code`, `sqlstate` and `errno` are not words."""
READERS = {
    "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "split", "rsplit", "partition", "rpartition",
    "removeprefix", "removesuffix",
}  # fmt: skip
"""Methods of a string that look for words in it. `splitlines` is how a line is made of an error for display."""
MATCHERS = {"match", "search", "fullmatch", "split", "findall", "finditer", "sub"}
SAYINGS = {"error", "err", "message", "detail", "reason", "problem", "said", "stderr", "description"}
"""Names that variables and fields with such a text have."""


@cache
def _modules() -> dict[str, ast.Module]:
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def _exception_names() -> set[str]:
    """Names of exceptions: Python's, the package's, and those of libraries that are caught in it."""
    found = {
        name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
    }
    nodes = [node for module in _modules().values() for node in ast.walk(module)]
    for node in nodes:
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            found |= {_last(kind) for kind in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type])}
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    while more := {kind.name for kind in classes if {_last(base) for base in kind.bases} & found} - found:
        found |= more
    return found - {""}


def _last(node: ast.expr | None) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


class _Function:
    """Follows the errors of one function, and the texts made from them, to where they are looked into."""

    def __init__(self, body: list[ast.stmt], arguments: ast.arguments | None, exceptions: set[str]) -> None:
        self._nodes = list(_own_nodes(body))
        self._exceptions = exceptions
        self._errors = {node.name for node in self._nodes if isinstance(node, ast.ExceptHandler) and node.name}
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs] if arguments else ():
            if self._is_exception_type(argument.annotation):
                self._errors.add(argument.arg)
        self._errors |= {
            node.target.id
            for node in self._nodes
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and self._is_exception_type(node.annotation)
        }
        self._texts: set[str] = set()
        while True:
            more = {
                target.id
                for node in self._nodes
                if isinstance(node, ast.Assign | ast.NamedExpr | ast.AnnAssign)
                and node.value
                and self._is_text(node.value)
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name)
            } - self._texts
            if not more:
                break
            self._texts |= more

    def _is_exception_type(self, annotation: ast.expr | None) -> bool:
        if annotation is None:
            return False
        names = {_last(node) for node in ast.walk(annotation) if isinstance(node, ast.Name | ast.Attribute)}
        return bool(names & self._exceptions)

    def _is_error(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Attribute) and node.attr in ("__cause__", "__context__", "orig", "diag", "value"):
            return self._is_error(node.value)
        return isinstance(node, ast.Name) and node.id in self._errors

    def _is_text(self, node: ast.expr) -> bool:
        """Whether an expression is made of an error's words."""
        if isinstance(node, ast.Name):
            return node.id in self._texts
        if isinstance(node, ast.Attribute):
            return node.attr in TEXTS and self._is_error(node.value)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and self._is_text(node.func.value):
                return True
            makes_text = _last(node.func) in ("str", "repr", "ascii", "first_line", "redact", "escape", "failed")
            return makes_text and any(self._is_error(part) or self._is_text(part) for part in node.args)
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            return any(self._is_error(part) or self._is_text(part) for part in parts)
        if isinstance(node, ast.BinOp):
            return self._is_text(node.left) or self._is_text(node.right)
        if isinstance(node, ast.BoolOp):
            return any(self._is_text(part) for part in node.values)
        if isinstance(node, ast.IfExp):
            return self._is_text(node.body) or self._is_text(node.orelse)
        return isinstance(node, ast.Subscript) and self._is_text(node.value)

    def decisions(self) -> Iterator[int]:
        """Lines that look for words in an error's text."""
        for node in self._nodes:
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                asks_for_words = isinstance(node.ops[0], ast.In | ast.NotIn) and isinstance(node.left, ast.Constant)
                if any(self._is_text(side) for side in sides) or (asks_for_words and _last(sides[1]) in SAYINGS):
                    yield node.lineno
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                holder, method = node.func.value, node.func.attr
                is_saying = self._is_text(holder) or _last(holder) in SAYINGS
                if (method in READERS and is_saying) or (
                    method in MATCHERS and any(self._is_text(a) for a in node.args)
                ):
                    yield node.lineno
            elif isinstance(node, ast.Match) and self._is_text(node.subject):
                yield node.lineno


def _own_nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions in it; their decorators and defaults are of no interest."""
    stack: list[ast.AST] = list(body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stack.extend(ast.iter_child_nodes(node))


def decisions_by_words(source: ast.Module) -> list[int]:
    exceptions = _exception_names()
    scopes = [(source.body, None)] + [
        (node.body, node.args) for node in ast.walk(source) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sorted({line for body, arguments in scopes for line in _Function(body, arguments, exceptions).decisions()})


def test_no_module_decides_by_the_words_of_an_error() -> None:
    found = {path: decisions_by_words(module) for path, module in _modules().items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "decision",
    [
        'if "501" in str(exc): pass',
        'if "501" not in f"{exc}": pass',
        'if exc.args[0] == "no": pass',
        'if str(exc).lower().startswith("no"): pass',
        'text = str(exc).strip()\n    if "x" in text: pass',
        'text = first_line(exc)\n    text.partition(": ")',
        'reason = redact(re.split("failed: ", str(exc))[-1])',
        'if re.search("time.*out", str(exc)): pass',
        'if PATTERN.fullmatch(exc.text): pass',
        'if "cursor" in f"{exc.name} {exc.text}".lower(): pass',
        'if exc.diag.message_primary == "no": pass',
        'if "no" in str(exc.__cause__): pass',
        'match str(exc):\n        case "no": pass',
        'if "still in use" in reason: pass',
        'if state.error.startswith("no"): pass',
    ],
)  # fmt: skip
def test_a_decision_by_words_is_noticed(decision: str) -> None:
    for source in (
        f"def f(exc: HostUnreachable) -> None:\n    {decision}",
        "try:\n  pass\nexcept ValueError as exc:\n    " + decision.replace("\n    ", "\n    "),
    ):
        assert decisions_by_words(ast.parse(source)), source


@pytest.mark.parametrize(
    "harmless",
    [
        "if exc.status == 501: pass",
        'if exc.sqlstate == "42P01": pass',
        "text = str(exc) or type(exc).__name__",
        "if len(str(exc)) > 500: pass",
        "print(str(exc).strip().splitlines()[0])",
        'if "a" in other: pass',
    ],
)
def test_showing_an_error_is_no_decision(harmless: str) -> None:
    assert not decisions_by_words(ast.parse(f"def f(exc: ServerFailure) -> None:\n    {harmless}"))
