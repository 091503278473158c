"""Parameters computed from others by arithmetic in a run file, which is parsed and never executed as code."""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Sequence

from lstmfit.errors import InputError, listed, one_line
from lstmfit.schema import LARGEST, shown

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS = {name: getattr(math, name) for name in ("exp", "log", "log10", "sqrt", "sin", "cos", "tan", "tanh")}
FUNCTIONS |= {"abs": abs, "min": min, "max": max}
ARGUMENTS = dict.fromkeys(FUNCTIONS, (1, 1)) | {"log": (1, 2), "min": (2, 100), "max": (2, 100)}
"""Minimum and maximum number of arguments."""
CONSTANTS = {"pi": math.pi, "e": math.e}
LONGEST = 2000
"""Maximum length of an expression in characters."""
DEEPEST = 50
"""Maximum nesting depth of brackets, functions and operators."""


def parse(text: str) -> ast.expr:
    """Syntax tree of an expression.

    Raises
    ------
    InputError
        It is not a valid expression, or is too long or too deeply nested.
    """
    text = str(text).strip()
    if len(text) > LONGEST:
        raise InputError(
            f"expression {_short(text)} has {len(text)} characters, but at most {LONGEST} are allowed; compute parts "
            "of it as separate parameters"
        )
    try:
        with warnings.catch_warnings():
            # Suppress Python's warnings about code such as `2(3)`, because an error is raised below.
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.args[0] if error.args else "it is nested too deeply"
        raise InputError(f"expression {_short(text)} cannot be read ({one_line(reason, 100)})") from None
    _check_depth(tree, text)
    return tree


def _short(text) -> str:
    return shown(str(text), 100)


def _check_depth(tree, text):
    """Check the nesting depth, without recursion, because the compiler is recursive."""
    level = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        if not level:
            return
    raise InputError(
        f"expression {_short(text)} is nested more than {DEEPEST} levels deep; compute parts of it as separate "
        "parameters"
    )


def names_in(text: str) -> set[str]:
    """Names of the parameters that an expression uses."""
    nodes = [node for node in ast.walk(parse(text)) if isinstance(node, ast.Name)]
    return {node.id for node in nodes} - set(FUNCTIONS) - set(CONSTANTS)


def compile_expression(text: str, names: Sequence[str]) -> Callable:
    """Convert an expression to a function of the parameter values.

    Parameters
    ----------
    text : str
        Numbers, names, ``+ - * / **``, parentheses, pi, e and the functions in `FUNCTIONS`.
    names : sequence of str
        Parameters in the order of the values.

    Returns
    -------
    callable
        values (len(names),) -> float; NaN if the arithmetic has no real result. It can be pickled.

    Raises
    ------
    InputError
        The expression contains anything else, an unknown name, or a wrong number of arguments.
    """
    return Expression(text, tuple(names))


class Expression:
    """A compiled expression, see `compile_expression`.

    Parameters
    ----------
    text : str
        The expression.
    names : tuple of str
        Parameters in the order of the values.
    """

    def __init__(self, text: str, names: tuple[str, ...]):
        self.text, self.names = text, names
        self._function = _compile(parse(text), text, {name: i for i, name in enumerate(names)})

    def __reduce__(self):
        return type(self), (self.text, self.names)

    def __call__(self, values) -> float:
        """Result for parameter values (len(names),); NaN if the arithmetic has no real result."""
        try:
            return float(self._function(values))
        except (ArithmeticError, ValueError):
            return math.nan


def _compile(node, text, index):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if not abs(node.value) <= LARGEST:
            raise InputError(f"expression {_short(text)}: {shown(node.value)} is not a number below {LARGEST:g}")
        value = float(node.value)
        return lambda values: value
    if isinstance(node, ast.Name):
        if node.id in index:
            i = index[node.id]
            return lambda values: float(values[i])
        if node.id in CONSTANTS:
            constant = CONSTANTS[node.id]
            return lambda values: constant
        raise InputError(
            f"expression {_short(text)}: unknown name {shown(node.id)}; the parameters are {listed(index)}"
        )
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        apply = OPERATORS[type(node.op)]
        left, right = _compile(node.left, text, index), _compile(node.right, text, index)
        return lambda values: apply(left(values), right(values))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        apply, operand = OPERATORS[type(node.op)], _compile(node.operand, text, index)
        return lambda values: apply(operand(values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _compile_call(node, text, index)
    raise InputError(
        f"expression {_short(text)}: {shown(ast.unparse(node))} is not allowed; use numbers, parameters, + - * / ** "
        "and functions"
    )


def _compile_call(node, text, index):
    name = node.func.id
    if name not in FUNCTIONS:
        raise InputError(f"expression {_short(text)}: unknown function {shown(name)}; use {', '.join(FUNCTIONS)}")
    low, high = ARGUMENTS[name]
    if not low <= len(node.args) <= high:
        wanted = "1 argument" if high == 1 else f"{low} or more arguments" if high > 2 else f"{low} or {high} arguments"
        raise InputError(f"expression {_short(text)}: {name} takes {wanted}, not {len(node.args)}")
    apply, arguments = FUNCTIONS[name], [_compile(a, text, index) for a in node.args]
    if len(arguments) == 1:
        (argument,) = arguments
        return lambda values: apply(argument(values))
    return lambda values: apply(*[argument(values) for argument in arguments])
