"""Parameters computed from others: arithmetic in a run file, read by its syntax tree and never executed as code."""

import ast
import math
import operator
from collections.abc import Callable, Sequence

from lstmfit.errors import InputError

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS = {name: getattr(math, name) for name in ("exp", "log", "log10", "sqrt", "sin", "cos", "tan", "tanh")}
FUNCTIONS |= {"abs": abs, "min": min, "max": max}
CONSTANTS = {"pi": math.pi, "e": math.e}


def parse(text: str) -> ast.expr:
    """Syntax tree of an expression.

    Raises
    ------
    InputError
        It is not an expression.
    """
    try:
        return ast.parse(str(text).strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(f"expression {text!r} cannot be read ({error.args[0]})") from None


def names_in(text: str) -> set[str]:
    """Names of the parameters that an expression uses."""
    nodes = [node for node in ast.walk(parse(text)) if isinstance(node, ast.Name)]
    return {node.id for node in nodes} - set(FUNCTIONS) - set(CONSTANTS)


def compile_expression(text: str, names: Sequence[str]) -> Callable:
    """Turn an expression into a function of the parameters' values.

    Parameters
    ----------
    text : str
        Numbers, names, ``+ - * / **``, parentheses, pi, e and the functions in `FUNCTIONS`.
    names : sequence of str
        Parameters in the order of the values.

    Returns
    -------
    callable
        values (len(names),) -> float; NaN where the arithmetic has no result.

    Raises
    ------
    InputError
        Anything else in it, or an unknown name.
    """
    function = _compile(parse(text), text, {name: i for i, name in enumerate(names)})

    def evaluate(values):
        try:
            result = function(values)
        except (ArithmeticError, ValueError):
            return math.nan
        # A negative number to a fractional power is complex in Python.
        return math.nan if isinstance(result, complex) else float(result)

    return evaluate


def _compile(node, text, index):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = float(node.value)
        return lambda values: value
    if isinstance(node, ast.Name):
        if node.id in index:
            i = index[node.id]
            return lambda values: float(values[i])
        if node.id in CONSTANTS:
            constant = CONSTANTS[node.id]
            return lambda values: constant
        raise InputError(f"expression {text!r}: unknown name {node.id!r}; the parameters are {', '.join(index)}")
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        apply = OPERATORS[type(node.op)]
        left, right = _compile(node.left, text, index), _compile(node.right, text, index)
        return lambda values: apply(left(values), right(values))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        apply, operand = OPERATORS[type(node.op)], _compile(node.operand, text, index)
        return lambda values: apply(operand(values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id in FUNCTIONS:
            apply, arguments = FUNCTIONS[node.func.id], [_compile(a, text, index) for a in node.args]
            return lambda values: apply(*[argument(values) for argument in arguments])
        raise InputError(f"expression {text!r}: no function {node.func.id!r}; there are {', '.join(FUNCTIONS)}")
    raise InputError(
        f"expression {text!r}: {ast.unparse(node)!r} is not allowed; use numbers, parameters, + - * / ** and functions"
    )
