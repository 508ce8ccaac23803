"""True accuracies of architectures from a table, such as NAS-Bench-201's.

They come from training on real images, so they judge a finished search and never guide one.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas_core.errors import InputError
from nas_core.search_spaces.base import Architecture, SearchSpace
from nas_core.search_spaces.nasbench201_api import read_api_file


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracies by notation.

    Attributes:
        accuracies: Accuracy of each architecture, in the table's unit (percent in the published ones).
        source: Where they come from, for messages.
    """

    accuracies: dict[str, float]
    source: str

    @classmethod
    def read(cls, path: str | Path, column: str) -> "AccuracyTable":
        """Read a CSV file with a header, or NAS-Bench-201's own file, whose name ends in .pth.

        Args:
            path: Has a column "arch" with the notation, and others with accuracies.
            column: The name of the accuracies' column, such as "cifar10-test".

        Raises:
            InputError: If the file, a column, a number, or an architecture's only line is missing or wrong.
        """
        if Path(path).suffix == ".pth":
            return cls(read_api_file(Path(path), column), str(path))
        try:
            with Path(path).open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows, header = list(reader), reader.fieldnames or []
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"the accuracy table {path} cannot be read ({error}); give a CSV file") from None
        for name in ("arch", column):
            if name not in header:
                raise InputError(f"{path} has no column '{name}'; it has {', '.join(header) or 'none'}")
        accuracies: dict[str, float] = {}
        for line, row in enumerate(rows, start=2):
            notation, value = row["arch"], _number(row[column])
            if value is None:
                raise InputError(f"{path}, line {line}: '{row[column]}' in column '{column}' is no number")
            if accuracies.get(notation, value) != value:
                raise InputError(f"{path}, line {line}: {notation} has two different accuracies; keep one line of it")
            accuracies[notation] = value
        return cls(accuracies, str(path))

    def write(self, path: str | Path, column: str) -> None:
        """Write a CSV file that `read` reads, with the accuracies in one column of a name."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("arch", column), *self.accuracies.items()])

    def of(self, architecture: Architecture) -> float:
        """The accuracy of an architecture.

        Raises:
            InputError: If the table does not hold it.
        """
        if architecture.notation not in self.accuracies:
            raise InputError(f"{self.source} does not hold {architecture.notation}; give a table of the whole space")
        return self.accuracies[architecture.notation]

    def check_covers(self, space: SearchSpace) -> None:
        """Refuse a table without any architecture of a space.

        Raises:
            InputError: With an example of how the space writes its architectures.
        """
        if not any(_is_of(space, notation) for notation in self.accuracies):
            example = space.architecture(space.sample(torch.Generator().manual_seed(0)))
            raise InputError(f"{self.source} holds no architecture of {space.name}, which writes them like '{example}'")

    def along(self, curve: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Anytime evaluation: the accuracy of what a search would have returned at each point of its course.

        Args:
            curve: `SearchOutcome.search`: records with "architecture", and "epoch" or "generation".

        Returns:
            {"epoch" or "generation", "true_accuracy"} of each record whose architecture the table holds.
        """
        return [
            {
                **{name: record[name] for name in ("epoch", "generation") if name in record},
                "true_accuracy": self.accuracies[record["architecture"]],
            }
            for record in curve
            if record["architecture"] in self.accuracies
        ]


def _is_of(space: SearchSpace, notation: str) -> bool:
    try:
        space.parse(notation)
    except InputError:
        return False
    return True


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
