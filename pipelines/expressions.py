"""The expressions inside Argo Workflows: ``depends``, ``when``, and a retry strategy's ``expression``.

Three small languages with one core (and, or, not, comparisons, ``in``, ``matches``, calls of known functions).
They are rewritten to Python's syntax, parsed, and walked over a list of allowed nodes; nothing is evaluated
that is not on the list.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

TASK_RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned")
_TASK = re.compile(rf"([A-Za-z_][\w-]*)(?:\.({'|'.join(TASK_RESULTS)}))?")
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


class ExpressionError(ValueError):
    """The expression is outside what can be evaluated here."""


def tasks_in(depends: str) -> set[str]:
    """Return the task names of a ``depends`` expression."""
    return {match[1] for match in _TASK.finditer(depends)}


def depends_met(depends: str, phases: Mapping[str, str]) -> bool:
    """Whether a ``depends`` expression holds; a bare task name means that it succeeded, was skipped or is a daemon.

    Raises:
        ExpressionError: it cannot be parsed.
    """

    def value(match: re.Match[str]) -> str:
        phase, asked = phases[match[1]], match[2]
        if asked is None:
            return str(phase in ("Succeeded", "Skipped", "Daemoned"))
        return str(phase == {"Errored": "Error"}.get(asked, asked))

    return bool(evaluate(_TASK.sub(value, depends), {})) if depends else True


def when_holds(condition: str) -> bool:
    """Whether a ``when`` condition holds, its tags filled in already: ``a == b`` with or without quotes.

    Raises:
        ExpressionError: it cannot be parsed.
    """
    parts = re.split(r"(==|!=|<=|>=|<|>|&&|\|\||[()])", condition)
    quoted = [p if re.fullmatch(r"==|!=|<=|>=|<|>|&&|\|\||[()]", p) else _as_literal(p) for p in parts]
    return bool(evaluate(" ".join(quoted), {}))


def _as_literal(word: str) -> str:
    word = word.strip()
    if not word or _STRING.fullmatch(word) or re.fullmatch(r"-?\d+(\.\d+)?|true|false", word):
        return word
    return repr(word)


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:  # noqa: ANN401  (a value of the expression)
    """Return the value of an expression over ``names``; dotted names are looked up as they stand.

    Raises:
        ExpressionError: it cannot be parsed, or uses what is not known here.
    """
    try:
        tree = ast.parse(_to_python(expression).strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ExpressionError(f"cannot parse {expression!r}") from error
    return _value(tree.body, {"true": True, "false": False, "nil": None, **names}, expression)


def _to_python(expression: str) -> str:
    """Rewrite operators outside of string literals."""
    pieces, end = [], 0
    for match in _STRING.finditer(expression):
        pieces += [_operators(expression[end : match.start()]), match[0]]
        end = match.end()
    rewritten = "".join(pieces) + _operators(expression[end:])
    return re.sub(r"([\w.]+)\s+matches\s+(" + _STRING.pattern + ")", r"matches(\1, \2)", rewritten)


def _operators(text: str) -> str:
    text = text.replace("&&", " and ").replace("||", " or ")
    return re.sub(r"!(?!=)", " not ", text)


def _value(node: ast.expr, names: Mapping[str, Any], source: str) -> Any:  # noqa: ANN401
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name() | ast.Attribute():
            return _look_up(ast.unparse(node), names, source)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, names, source) for item in items]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, names, source)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names, source)
        case ast.BoolOp(op=op, values=values):
            results = (bool(_value(v, names, source)) for v in values)
            return all(results) if isinstance(op, ast.And) else any(results)
        case ast.Compare():
            return _compare(node, names, source)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]):
            return _call(function, [_value(a, names, source) for a in arguments], source)
    raise ExpressionError(f"{ast.unparse(node)!r} in {source!r} is not supported")


def _look_up(name: str, names: Mapping[str, Any], source: str) -> Any:  # noqa: ANN401
    if name not in names:
        raise ExpressionError(f"{name!r} in {source!r} is not known")
    return names[name]


def _compare(node: ast.Compare, names: Mapping[str, Any], source: str) -> bool:
    left = _value(node.left, names, source)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, names, source)
        compare = _COMPARE.get(type(op))
        if compare is None:
            raise ExpressionError(f"the comparison in {source!r} is not supported")
        try:
            if not compare(left, right):
                return False
        except TypeError as error:
            raise ExpressionError(f"{left!r} and {right!r} in {source!r} cannot be compared") from error
        left = right
    return True


def _call(function: str, arguments: list[Any], source: str) -> Any:  # noqa: ANN401
    match function, arguments:
        case "asInt", [value]:
            return int(float(value)) if value not in (None, "") else -1
        case "asFloat", [value]:
            return float(value)
        case "string", [value]:
            return str(value)
        case "matches", [text, pattern]:
            return re.search(pattern, text or "") is not None
    raise ExpressionError(f"the function {function!r} in {source!r} is not supported")
