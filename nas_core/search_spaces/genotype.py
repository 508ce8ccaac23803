"""The field's notation of a pair of DARTS cells, read safely.

Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6)):
two (operation, source) pairs per node, nodes 2 to 5 in order.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from nas_core.errors import InputError

# (operation, source) of each kept edge, two per node.
Pairs = tuple[tuple[str, int], ...]

_CONCAT = range(2, 6)


@dataclass(frozen=True)
class Genotype:
    """A pair of cells.

    Attributes:
        normal: The normal cell.
        reduce: The reduction cell.
    """

    normal: Pairs
    reduce: Pairs

    def __str__(self) -> str:
        """The field's notation."""
        cells = [f"{name}={list(pairs)}, {name}_concat={_CONCAT}" for name, pairs in vars(self).items()]
        return f"Genotype({', '.join(cells)})"


def parse_genotype(text: str) -> Genotype:
    """Read the notation; nothing of it is executed.

    Args:
        text: The notation; concat may be a range or a list, and pairs of a node may come in any order.

    Raises:
        InputError: If the text is not such a call, or a node has not two different sources before it.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or ast.unparse(call.func) != "Genotype":
            raise ValueError("it is no call of Genotype with keywords")
        fields = {str(keyword.arg): keyword.value for keyword in call.keywords}
        if sorted(fields) != ["normal", "normal_concat", "reduce", "reduce_concat"] or len(call.keywords) != 4:
            raise ValueError("it needs normal, normal_concat, reduce and reduce_concat")
        for name in ("normal_concat", "reduce_concat"):
            if _numbers(fields[name]) != list(_CONCAT):
                raise ValueError(f"{name} must be range(2, 6): a cell's output is all of its nodes")
        return Genotype(_pairs("normal", fields["normal"]), _pairs("reduce", fields["reduce"]))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"'{text[:200]}' is no genotype of DARTS cells: {error}; write it like Genotype(normal=[('sep_conv_3x3', "
            "0), ('skip_connect', 1), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))"
        ) from None


def _numbers(node: ast.expr) -> list[int]:
    """The numbers of `range(a, b)` or of a list."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "range" and len(node.args) == 2 and not node.keywords:
        first, last = (ast.literal_eval(argument) for argument in node.args)
        # Compared before it is expanded: range(0, 10**12) is a short text.
        return list(_CONCAT) if (first, last) == (_CONCAT.start, _CONCAT.stop) else []
    value = ast.literal_eval(node)
    return list(value) if isinstance(value, list | tuple) else []


def _pairs(name: str, node: ast.expr) -> Pairs:
    """Eight (operation, source) pairs, sorted by source within a node."""
    value = ast.literal_eval(node)
    if not isinstance(value, list | tuple) or len(value) != 8 or not all(map(_is_pair, value)):
        raise ValueError(f"{name} must hold eight pairs of an operation and a source")
    ordered: list[tuple[str, int]] = []
    for node_number in _CONCAT:
        position = 2 * (node_number - 2)
        first, second = sorted(value[position : position + 2], key=lambda pair: pair[1])
        if not 0 <= first[1] < second[1] < node_number:
            raise ValueError(f"node {node_number} of {name} must have two different sources below {node_number}")
        ordered += [(first[0], first[1]), (second[0], second[1])]
    return tuple(ordered)


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )
