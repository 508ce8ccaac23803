"""Which rankings of the benchmark against NAS-Bench-201 are better than others, whatever architectures judge them?

    python -m benchmarks.nasbench201_intervals docs/results/nasbench201.json

A paired bootstrap: of the architectures that judge rankings as many are drawn, with replacement, again and again, each
time the same for both rankings of a comparison; between the 2.5th and the 97.5th percentile of the difference of their
taus is its interval. A ranking's tau is the mean over the seeds that both have: what other seeds would give is no part
of this. For the best tenth, what is drawn are the truly best.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Row = tuple[str, str]

RESAMPLES = 10_000
# Methods that see no image are in the rows of one kind of data.
COUNTING = ("macs", "noise")


class Comparison(NamedTuple):
    """Two rankings, each a method on a kind of data, by tau over all architectures or within the truly best tenth."""

    one: Row
    other: Row
    best: bool = False


def on(kind: str, one: str, other: str, best: bool = False) -> Comparison:
    """Two methods on one kind of data; counting needs none."""
    first, second = (COUNTING if method == "counting" else (method, kind) for method in (one, other))
    return Comparison(first, second, best)


# What docs/results/nasbench201.md calls better, worse or alike.
COMPARISONS = (
    on("synthetic", "training-free", "counting"),
    Comparison(("training-free", "synthetic"), ("az-nas", "noise")),
    Comparison(("training-free", "synthetic"), ("training-free", "real")),
    Comparison(("training-free", "synthetic"), ("training-free", "noise")),
    Comparison(("naswot", "synthetic"), ("naswot", "real")),
    Comparison(("naswot", "synthetic"), ("naswot", "noise")),
    Comparison(("zico", "synthetic"), ("zico", "real")),
    Comparison(("az-nas-images", "synthetic"), ("az-nas-images", "real")),
    Comparison(("az-nas", "noise"), ("az-nas-images", "synthetic")),
    Comparison(("sdarts-rs", "synthetic"), ("sdarts-rs", "real")),
    on("synthetic", "spos-colours", "spos"),
    on("real", "spos-colours", "spos"),
    on("synthetic", "spos-colours-macs", "counting"),
    on("synthetic", "spos-colours-scores", "training-free"),
    on("real", "spos-colours-scores", "training-free"),
    Comparison(("spos", "synthetic"), ("spos", "real")),
    Comparison(("spos-colours", "synthetic"), ("spos-colours", "real")),
    Comparison(("spos-colours-macs", "synthetic"), ("spos-colours-macs", "real")),
    Comparison(("spos-colours-scores", "synthetic"), ("spos-colours-scores", "real")),
    on("synthetic", "counting", "training-free", best=True),
    on("synthetic", "spos-colours-macs", "counting", best=True),
    on("real", "spos-colours-macs", "counting", best=True),
    on("synthetic", "spos-colours-scores", "training-free", best=True),
    on("real", "spos-colours-scores", "training-free", best=True),
)


def best_tenth(accuracies: Sequence[float]) -> list[int]:
    """Indices of the tenth with the highest accuracies, best first."""
    return sorted(range(len(accuracies)), key=lambda index: -accuracies[index])[: len(accuracies) // 10]


def taus(scores: Sequence[float], accuracies: Sequence[float], counts: Values) -> Values:
    """Kendall's tau-b of resamples.

    Args:
        scores: One per architecture.
        accuracies: The same.
        counts: How often each resample has each architecture, of shape (resamples, architectures).
    """
    ahead, truly = (np.sign(np.subtract.outer(values, values)) for values in (scores, accuracies))

    def pairs(signs: Values) -> Values:
        return ((counts @ signs) * counts).sum(axis=1)

    return pairs(ahead * truly) / np.sqrt(pairs(ahead**2) * pairs(truly**2))


def mean_tau(
    rows: Sequence[Mapping[str, Any]], accuracies: Sequence[float], chosen: Sequence[int], counts: Values
) -> Values:
    """The mean of rows' taus, as a rule of a method's with several seeds, over the chosen architectures.

    Args:
        rows: With a score per architecture.
        accuracies: One per architecture.
        chosen: Indices.
        counts: As of `taus`, of the chosen ones.
    """
    truth = [accuracies[index] for index in chosen]
    return np.mean([taus([row["scores"][index] for index in chosen], truth, counts) for row in rows], axis=0)


def lines(rows: Sequence[Mapping[str, Any]], accuracies: Sequence[float]) -> list[str]:
    """A line of Markdown per comparison of which there are rows."""
    found = []
    for comparison in COMPARISONS:
        by_seed = [
            {row["seed"]: row for row in rows if (row["method"], row["kind"]) == side and "scores" in row}
            for side in comparison[:2]
        ]
        seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
        if seeds:
            sides = [[of_seed[seed] for seed in seeds] for of_seed in by_seed]
            found.append(line(comparison, seeds, sides, accuracies))
    return found


def line(
    comparison: Comparison,
    seeds: Sequence[int],
    sides: Sequence[Sequence[Mapping[str, Any]]],
    accuracies: Sequence[float],
) -> str:
    """One comparison: both taus, their difference and its interval."""
    chosen = best_tenth(accuracies) if comparison.best else list(range(len(accuracies)))
    as_they_are = np.ones((1, len(chosen)))
    one, other = (float(mean_tau(side, accuracies, chosen, as_they_are)[0]) for side in sides)
    # Every comparison has the same resamples.
    chances = as_they_are[0] / len(chosen)
    counts = np.random.default_rng(0).multinomial(len(chosen), chances, size=RESAMPLES).astype(float)
    first, second = (mean_tau(side, accuracies, chosen, counts) for side in sides)
    low, high = np.percentile(first - second, (2.5, 97.5))
    cells = (
        *(", ".join(side) for side in comparison[:2]),
        f"best {len(chosen)}" if comparison.best else f"all {len(chosen)}",
        ", ".join(map(str, seeds)),
        f"{one:.3f}",
        f"{other:.3f}",
        f"{one - other:+.3f}",
        f"{low:+.3f} to {high:+.3f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the comparisons as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="rows.json of the benchmark's --out")
    kept = json.loads(parser.parse_args().rows.read_text())
    columns = ("ranking", "other", "architectures", "seeds", "tau", "tau of other", "difference", "95 % of resamples")
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines(kept["rows"], kept["accuracies"]), sep="\n")


if __name__ == "__main__":
    main()
