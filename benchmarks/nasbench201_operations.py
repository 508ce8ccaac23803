"""Where a ranking of the benchmark against NAS-Bench-201 puts the operations of each edge, and what alpha gives them.

    python -m benchmarks.nasbench201_operations docs/results/nasbench201.json --table nasbench201_cifar10.csv \
        --row proxyless synthetic 0

The mean rank, 1 is best, of the architectures that have an operation at an edge: by true accuracy and by the row's
scores. Where the search has architecture weights, also what they give each operation in the last epoch, and Spearman's
rho of these weights with the mean scores: whether they go where the supernet's paths do well.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import rankdata, spearmanr

from benchmarks.nasbench201 import ranked_architectures
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201

Cells = Sequence[Sequence[str]]


def mean_ranks(cells: Cells, scores: Sequence[float]) -> list[list[float]]:
    """Mean rank by score, 1 is best, per edge of the cells with each operation of `OPERATIONS` there.

    Args:
        cells: The operations of each architecture, one per edge.
        scores: One per architecture.
    """
    ranks = rankdata([-score for score in scores])
    return [
        [
            mean(float(rank) for rank, cell in zip(ranks, cells, strict=True) if cell[edge] == operation)
            for operation in OPERATIONS
        ]
        for edge in range(len(EDGES))
    ]


def agreement(ranks: Sequence[Sequence[float]], gates: Sequence[Sequence[float]]) -> float:
    """Spearman's rho of architecture weights with how well operations rank: 1, if the better always has the more."""
    found = spearmanr([-rank for edge in ranks for rank in edge], [weight for edge in gates for weight in edge])
    return float(found[0])  # type: ignore[arg-type]


def lines(row: Mapping[str, Any], cells: Cells, accuracies: Sequence[float]) -> list[str]:
    """A table in Markdown, with a line per edge and ranking."""
    ranks = mean_ranks(cells, row["scores"])
    kinds = {"true accuracy": mean_ranks(cells, accuracies), "score": ranks}
    written = {name: [[f"{rank:.0f}" for rank in edge] for edge in table] for name, table in kinds.items()}
    if "gates" in row:
        written["alpha"] = [[f"{weight:.2f}" for weight in edge] for edge in row["gates"]]
    table = [
        f"| {source} to {target} | {name} | {' | '.join(values[edge])} |"
        for edge, (target, source) in enumerate(EDGES)
        for name, values in written.items()
    ]
    header = f"| nodes | by | {' | '.join(OPERATIONS)} |"
    rho = [f"\nrho of alpha with the mean scores: {agreement(ranks, row['gates']):.2f}"] if "gates" in row else []
    return [header, "|---" * (2 + len(OPERATIONS)) + "|", *table, *rho]


def main() -> None:
    """Print the table of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="rows.json of the benchmark's --out")
    parser.add_argument("--table", type=Path, required=True, help="the CSV of true accuracies, for the architectures")
    parser.add_argument("--row", nargs=3, metavar=("METHOD", "KIND", "SEED"), required=True)
    arguments = parser.parse_args()
    kept = json.loads(arguments.rows.read_text())
    method, kind, seed = arguments.row
    wanted = [row for row in kept["rows"] if (row["method"], row["kind"], str(row["seed"])) == (method, kind, seed)]
    if not wanted or "scores" not in wanted[0]:
        parser.error(f"{arguments.rows} has no ranking of {method} on {kind} images with seed {seed}")
    truth = AccuracyTable.read(arguments.table, "cifar10_test_acc_200ep")
    space = NasBench201(input_shape=(3, 32, 32), num_classes=10)
    cells = [[str(name) for name in space.parse(text).operations] for text in ranked_architectures(truth)]
    print(*lines(wanted[0], cells, kept["accuracies"]), sep="\n")


if __name__ == "__main__":
    main()
