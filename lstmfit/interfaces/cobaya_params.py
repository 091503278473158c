"""Parameters in the words of Cobaya. Does not import Cobaya."""

import ast

from lstmfit.parameter_space import natural_parameters
from lstmfit.parameters import Parameter
from lstmfit.priors.expressions import CONSTANTS, FUNCTIONS, names_in, parse


def cobaya_params(params: dict) -> dict[str, dict]:
    """Block ``params`` of a Cobaya component.

    Parameters
    ----------
    params : dict of str to (Parameter or dict)
        Parameters of a signal, whose prior is their range, or ``prior`` and ``latex`` of those of a likelihood. A
        parameter without a prior is left out, since its prior is the user's to give.
    """
    signal = {name: given for name, given in params.items() if isinstance(given, Parameter)}
    blocks = natural_parameters(signal.values()) | {n: given for n, given in params.items() if n not in signal}
    return {
        name: {"prior": cobaya_prior(block["prior"])} | ({"latex": block["latex"]} if block.get("latex") else {})
        for name, block in blocks.items()
        if block.get("prior") is not None
    }


def cobaya_prior(spec: dict) -> dict:
    """A ``prior:`` block of lstmfit for Cobaya, which takes the limits of some distributions in scipy's way."""
    spec = {key: value for key, value in spec.items() if key != "sorted"}
    if spec.get("dist") == "loguniform" and "min" in spec:
        spec = {"dist": "loguniform", "a": spec["min"], "b": spec["max"]}
    return spec


def cobaya_function(text: str) -> str:
    """An expression of lstmfit as a lambda function in Cobaya.

    Examples
    --------
    >>> cobaya_function("log10(fX) + pi * b")
    'lambda b, fX: np.log10(fX) + np.pi * b'
    """
    tree = _InNumPy().visit(parse(text))
    return f"lambda {', '.join(sorted(names_in(text)))}: {ast.unparse(tree)}"


class _InNumPy(ast.NodeTransformer):
    """Functions and constants by their names in NumPy, which Cobaya offers as ``np``."""

    def visit_Name(self, node):
        if (node.id in FUNCTIONS and node.id not in ("abs", "min", "max")) or node.id in CONSTANTS:
            return ast.Attribute(ast.Name("np", ast.Load()), node.id, ast.Load())
        return node
