"""True accuracies from NAS-Bench-201's own file, NAS-Bench-201-v1_1-096897.pth, without its code.

The file is a pickle of plain values: {"meta_archs": notations, "arch2infos": {index: {"full" (200 epochs), "less" (12):
{"all_results": {(dataset, seed): {"epochs", "eval_acc1es": {"set@epoch": percent}, ...}}, ...}}}, "evaluated_indexes"}.
It is read so that nothing but such values can come of it, and no code of the file runs.

Source: Dong and Yang, "NAS-Bench-201", arXiv:2001.00326; the structure is that of the code that writes and reads the
file, `nas_201_api`.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas_core.errors import InputError

# Which training set, and which images judge after its last epoch. The names are those of the benchmark's tables.
COLUMNS = {
    "cifar10-valid": ("cifar10-valid", "x-valid"),
    "cifar10-test": ("cifar10", "ori-test"),
    "cifar100-valid": ("cifar100", "x-valid"),
    "cifar100-test": ("cifar100", "x-test"),
    "ImageNet16-120-valid": ("ImageNet16-120", "x-valid"),
    "ImageNet16-120-test": ("ImageNet16-120", "x-test"),
}
# Numbers may be NumPy's, of which old versions had another place for the function that makes them.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]


def read_api_file(path: Path, column: str) -> dict[str, float]:
    """Accuracies in percent by notation: after 200 epochs, the mean over the runs that the file holds.

    Args:
        path: The file; it takes tens of gigabytes of memory, and long.
        column: One of `COLUMNS`.

    Raises:
        InputError: If the column is unknown, or the file is damaged, holds code, or is another one.
    """
    if column not in COLUMNS:
        raise InputError(f"{path} has no column '{column}'; it has {', '.join(COLUMNS)}")
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0] if isinstance(error, OSError) else "it is damaged or holds code"
        raise InputError(
            f"the accuracy table {path} cannot be read without running what is in it ({reason}); where you trust it, "
            "write a CSV file of it with the benchmark's own code"
        ) from error
    try:
        return {
            content["meta_archs"][index]: _mean(runs["full"]["all_results"], *COLUMNS[column])
            for index, runs in content["arch2infos"].items()
        }
    except (KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError, ValueError) as error:
        raise InputError(
            f"{path} is not NAS-Bench-201's file, or not version 1.1 ({type(error).__name__}: {error}); give "
            "NAS-Bench-201-v1_1-096897.pth, or a CSV file"
        ) from error


def _mean(results: Mapping[tuple[str, int], Mapping[str, Any]], dataset: str, images: str) -> float:
    """The mean over seeds of an accuracy after the last epoch."""
    last = [
        float(result["eval_acc1es"][f"{images}@{result['epochs'] - 1}"])
        for (trained_on, _), result in results.items()
        if trained_on == dataset
    ]
    return sum(last) / len(last)
