"""Operations per edge of DARTS and of its restrictions S1 to S4, on which plain DARTS is known to fail.

Source: Zela et al., "Understanding and Robustifying Differentiable Architecture Search", arXiv:1909.09656, and its
reference code.
"""

from nas_core.search_spaces.darts_cells import EDGES, OPERATIONS
from nas_core.settings.spaces import Subspace

# The operations of each edge of a cell, in the order of EDGES.
CellOperations = tuple[tuple[str, ...], ...]

_NAMES = {
    "sk": "skip_connect",
    "s3": "sep_conv_3x3",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
    "mx": "max_pool_3x3",
    "av": "avg_pool_3x3",
}


def _listed(text: str) -> CellOperations:
    """Operations of every edge from abbreviations, such as "sk,d3 mx,av" for two edges."""
    return tuple(tuple(_NAMES[name] for name in edge.split(",")) for edge in text.split())


def _everywhere(*names: str) -> tuple[CellOperations, CellOperations]:
    cell = (names,) * len(EDGES)
    return cell, cell


# By name, the operations of the normal and of the reduction cell.
SUBSPACES: dict[Subspace, tuple[CellOperations, CellOperations]] = {
    "none": _everywhere(*OPERATIONS),
    "s1": (
        _listed("sk,d3 sk,d5 sk,d5 sk,s3 sk,d3 mx,sk sk,s3 sk,s3 sk,d3 sk,s3 mx,sk sk,d3 d3,d5 d3,d5"),
        _listed("mx,av mx,d3 mx,av mx,av sk,d5 mx,av mx,s3 sk,d3 sk,d5 mx,av mx,av sk,d5 sk,d5 sk,d5"),
    ),
    "s2": _everywhere("skip_connect", "sep_conv_3x3"),
    "s3": _everywhere("none", "skip_connect", "sep_conv_3x3"),
    "s4": _everywhere("noise", "sep_conv_3x3"),
}
