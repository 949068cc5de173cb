"""The language of filter_function and goodness_function: texts to trees, trees to values, one pool or all at once."""

from .nodes import ExpressionError, Node
from .scalar import evaluate
from .text import Expression, expression

__all__ = ["Expression", "ExpressionError", "Node", "evaluate", "expression"]
