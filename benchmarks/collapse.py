"""Does differentiable search drift to skip connections? True accuracy, skips and curvature, epoch by epoch.

    python -m benchmarks.collapse --images cifar10_jpeg.tar.gz --table nasbench201.csv --json out.json --plot out.png

On NAS-Bench-201's space, made small (fewer channels and cells, real images shrunk to 16 x 16, true labels), each method
searches with each seed, and every epoch's derived architecture is looked up in a table of true accuracies, which no
search sees. All methods have the same images, epochs, batch size, learning rates and order (the first); what is left is
each method's own.
Runs that the JSON file already has are not computed again, and those of other settings are left out; `--plot` alone
draws it anew.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional

from benchmarks.common import CLASSES, TrueLabels, add_device, hardware, read_images
from nas_core.checkpoint import Checkpoint
from nas_core.device import resolve_device
from nas_core.registry import Spec
from nas_core.reporting.style import FAINT, SERIES, panels, styled, whole_steps
from nas_core.search_spaces.lookup import AccuracyTable
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.strategies import SearchTask, macs_budget, strategies
from nas_core.teachers import Teacher

# Raised when the code changes what a run finds.
VERSION = 1
METHODS = {
    "darts": "DARTS",
    "sdarts-rs": "SDARTS-RS",
    "sdarts-adv": "SDARTS-ADV",
    "pc-darts": "PC-DARTS",
    "darts-es": "DARTS-ES",
}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SHIFT = 2  # pixels by which an image may move
ALL_SKIPS = 54.30  # true accuracy of the cell of six skip connections, percent
SHOWN = {
    "accuracy": "true accuracy, %",
    "largest_eigenvalue": "largest eigenvalue",
    "skips": "skip connections of 6",
    "none": "edges left out of 6",
}


def make_task(arguments: argparse.Namespace, seed: int) -> SearchTask:
    """The reduced setting: half of the images for the weights, half for the architecture."""
    draws = generator(seed, "benchmark.images")
    images, labels = read_images(arguments.images, "train", arguments.count, draws)
    order = torch.randperm(len(images), generator=draws)  # they come class by class
    images, labels = images[order], labels[order]
    small = functional.interpolate(images.float(), size=(arguments.side,) * 2, mode="area").round().to(torch.uint8)
    shape = (3, arguments.side, arguments.side)
    windows = functional.pad(small, (SHIFT,) * 4)
    device = resolve_device(arguments.device)
    unused = Teacher(nn.Conv2d(3, len(CLASSES), 1), shape, MEAN, STD, CLASSES).to(device)
    half = len(small) // 2
    train, validation = (
        TrueLabels(windows[part], labels[part], unused, arguments.batch) for part in (slice(0, half), slice(half, None))
    )
    space = NasBench201(arguments.channels, arguments.cells, input_shape=shape, num_classes=len(CLASSES))
    return SearchTask(space, train, validation, macs_budget(), 1.0, seed, device)


def settings(method: str, arguments: argparse.Namespace) -> Spec:
    """A method's preset with what all methods share."""
    shared = {
        "epochs": arguments.epochs,
        "learning_rate": 0.025,
        "final_learning_rate": 0.001,
        "nesterov": True,
        "alpha_learning_rate": arguments.alpha_rate,
        "hessian_every": 2,
        "order": "first",
        "precision": arguments.precision,
    }
    # Published is a fifth of 50 epochs, which in short searches the rule would never get beyond.
    own = {"stopping": {"earliest": arguments.epochs // 5}} if method == "darts-es" else {}
    return strategies.spec(method).model_validate({"name": method} | shared | own)


def setting(method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a method's runs depend on beside seed and files: a run is stale if one of its defaults has changed."""
    names = ("count", "side", "channels", "cells", "batch", "column")
    asked = {name: getattr(arguments, name) for name in names}
    return {"version": VERSION, **asked, "strategy": settings(method, arguments).model_dump(mode="json")}


def search(method: str, seed: int, table: AccuracyTable, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run: the record of every epoch, and what came out."""
    task = make_task(arguments, seed)
    strategy = strategies.build(settings(method, arguments))
    started = time.process_time()
    outcome = strategy.search(task, Checkpoint(), lambda *state: show(f"{method}, seed {seed}", *state))
    epochs = [
        {
            "epoch": record["epoch"],
            "architecture": record["architecture"],
            "accuracy": table.of(task.space.parse(record["architecture"])),
            "skips": record["skip_connect"],
            "none": record["architecture"].count("none~"),
            "largest_eigenvalue": record.get("largest_eigenvalue"),
            "validation_loss": record.get("validation_loss"),
            "validation_accuracy": record.get("validation_agreement"),
        }
        for record in outcome.search
    ]
    return {
        "method": method,
        "seed": seed,
        "setting": setting(method, arguments),
        "architecture": str(outcome.architecture),
        "accuracy": table.of(outcome.architecture),
        "skips": outcome.architecture.operations.count("skip_connect"),
        "none": outcome.architecture.operations.count("none"),
        "seconds": round(time.process_time() - started, 1),
        "epochs": epochs,
    }


def show(title: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """A line of progress on a terminal."""
    if sys.stderr.isatty():
        text = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        print(f"\r{title}: step {done} of {total}, {text}\033[K", end="", file=sys.stderr)


@styled
def picture(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Per figure one panel over the epochs: a thin line per seed, a thick one for the mean of a method."""
    figure, grid = panels(len(SHOWN), columns=2, width=8, height=2.8)
    for axes, (key, title) in zip(grid, SHOWN.items(), strict=True):
        for colour, (method, label) in zip(SERIES, METHODS.items(), strict=False):
            curves = [curve(run, key) for run in runs if run["method"] == method]
            for epochs, values in curves:
                axes.plot(epochs, values, color=colour, linewidth=0.7, alpha=0.35)
            if curves:
                # A method that stops keeps what it found.
                longest = max((epochs for epochs, _ in curves), key=len)
                means = [mean(values[min(i, len(values) - 1)] for _, values in curves) for i in range(len(longest))]
                axes.plot(longest, means, color=colour, label=label)
        if key == "accuracy":
            axes.axhline(ALL_SKIPS, color=FAINT, linestyle=":", zorder=0)
        axes.set(title=title, xlabel="epoch")
        whole_steps(axes)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(METHODS))
    return figure


def curve(run: Mapping[str, Any], key: str) -> tuple[list[int], list[float]]:
    """Epochs and values of a figure, where it was measured; a run that stopped ends with what it returned."""
    records = [record for record in run["epochs"] if record[key] is not None]
    values = [record[key] for record in records]
    if key in run:
        values[-1] = run[key]
    return [record["epoch"] for record in records], values


def table_of(runs: Sequence[Mapping[str, Any]]) -> str:
    """What came out, as a Markdown table: mean and standard deviation over the seeds."""
    lines = [
        "| method | seeds | true accuracy, % | each | skips of 6 | none of 6 | eigenvalue, first → last 5 | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, title in METHODS.items():
        found = [run for run in runs if run["method"] == method]
        if not found:
            continue
        eigenvalues = [curve(run, "largest_eigenvalue")[1] for run in found]
        cells = [
            title,
            str(len(found)),
            spread([run["accuracy"] for run in found], 2),
            ", ".join(f"{run['accuracy']:.2f}" for run in found),
            spread([run["skips"] for run in found], 1),
            spread([run["none"] for run in found], 1),
            f"{mean(mean(v[:5]) for v in eigenvalues):.3f} → {mean(mean(v[-5:]) for v in eigenvalues):.3f}",
            f"{mean(run['seconds'] for run in found):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation of several."""
    middle = f"{mean(values):.{digits}f}"
    return f"{middle} ± {stdev(values):.{digits}f}" if len(values) > 1 else middle


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="tar with {train,test}/<class>/<n>.jpg")
    parser.add_argument("--table", type=Path, help="CSV of true accuracies, with a column `arch`")
    parser.add_argument("--column", default="cifar10_test_acc_200ep", help="the column of the accuracies")
    parser.add_argument("--json", type=Path, required=True, help="where runs are kept; continued if it exists")
    parser.add_argument("--plot", type=Path, help="picture to draw, such as out.png")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=3200, help="real images, half of them for validation")
    parser.add_argument("--side", type=int, default=16, help="pixels that images are shrunk to")
    parser.add_argument("--channels", type=int, default=8, help="channels of the first stage")
    parser.add_argument("--cells", type=int, default=1, help="cells per stage")
    parser.add_argument("--batch", type=int, default=32, help="images per batch")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of the search")
    parser.add_argument("--alpha-rate", type=float, default=3e-3, help="learning rate of the architecture weights")
    add_device(parser)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="float32")
    return parser.parse_args()


def main() -> None:
    """Search what is missing, print the table and draw the picture."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    kept = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"commands": {}, "runs": []}
    runs: list[dict[str, Any]] = kept["runs"]
    if arguments.images and arguments.table:
        table = AccuracyTable.read(arguments.table, arguments.column)
        for seed in arguments.seeds:
            for method in arguments.methods:
                wanted = (method, seed, setting(method, arguments))
                if any((run["method"], run["seed"], run["setting"]) == wanted for run in runs):
                    continue
                runs.append(search(method, seed, table, arguments))
                print({key: value for key, value in runs[-1].items() if key != "epochs"}, flush=True)
                command = shlex.join(["python", "-m", "benchmarks.collapse", *sys.argv[1:]])
                kept["commands"][command] = hardware(resolve_device(arguments.device))
                arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    asked = [run for run in runs if run["method"] in arguments.methods]
    shown = [run for run in asked if run["setting"] == setting(run["method"], arguments)]
    print(table_of(shown))
    if arguments.plot and shown:
        picture(shown).savefig(arguments.plot, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
