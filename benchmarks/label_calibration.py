"""Which temperature makes recursive label calibration join related classes, and what it does over the rounds.

python -m benchmarks.label_calibration configs/digits.yaml

For each temperature the first shard of the config goes through its rounds. Printed after every round: what the teacher
finds in the images (confidence and entropy of the soft labels, their drift from the targets, top-1 on the asked class
over fresh windows), and last the classes that the labels join most. No real image is used.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows.config_file import read_config
from nas_core.config import RunConfig
from nas_core.evaluation.dataset_quality import class_affinity, dataset_quality, off_diagonal_mass, top_pairs
from nas_core.seeding import generator
from nas_core.synthesis.labels import chosen_classes, label_changes, one_hot, shard_classes
from nas_core.synthesis.pixels import PixelSynthesis
from nas_core.teachers import Teacher, teachers

COLUMNS = {
    "temperature": "T",
    "round": "round",
    "label_confidence": "confidence",
    "label_entropy": "entropy",
    "off_diagonal": "off target",
    "top1_drift": "drift",
    "top5_overlap": "overlap",
    "teacher_top1": "top-1",
    "rank_correlation": "rank corr.",
    "batch_norm_distance": "BN dist.",
    "within_class_distance": "diversity",
    "pairs": "strongest joins",
}


def main() -> None:
    """Measure the temperatures of the command line, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument(
        "--loss-at-1", action="store_true", help="compare predictions at temperature 1 with the targets"
    )
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    config = read_config(arguments.config, arguments.settings)
    if config.synthesis.engine.name != "pixels":
        sys.exit(f"{arguments.config} has the engine {config.synthesis.engine.name}; --set synthesis.engine to pixels")
    teacher = teachers.build(config.teacher)
    rows: list[dict[str, Any]] = []
    print("| " + " | ".join(COLUMNS.values()) + " |")
    print("|" + "---|" * len(COLUMNS))
    for temperature in arguments.temperatures:
        for row in rounds(config, teacher, temperature, 1.0 if arguments.loss_at_1 else temperature):
            rows.append(row)
            print("| " + " | ".join(written(row[column]) for column in COLUMNS) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def rounds(config: RunConfig, teacher: Teacher, temperature: float, loss_temperature: float):
    """One row of figures per round of the config's first shard at a temperature of the labels."""
    synthesis = config.synthesis
    labels = synthesis.labels.model_copy(update={"temperature": temperature})
    canvas = synthesis.canvas_size(teacher.input_shape)
    engine = PixelSynthesis(teacher, canvas_size=canvas, labels=labels, **synthesis.engine.values())
    classes = chosen_classes(synthesis.classes, teacher.class_names)
    first = classes[shard_classes(config.seed, 0, synthesis.batch_size, len(classes))]
    targets: Tensor = one_hot(first, teacher.num_classes)
    start = None
    for number in range(synthesis.rounds):
        began = time.perf_counter()
        images = engine.make(
            targets,
            generator(config.seed, "synthesis.noise", number, 0),
            target_temperature=1.0 if number == 0 else loss_temperature,
            start=start,
        )
        seconds = time.perf_counter() - began
        affinity = class_affinity(targets, images.soft_labels)
        quality = dataset_quality(images.canvases, targets, teacher, generator(config.seed, "quality", number))
        yield {
            "temperature": temperature,
            "round": number,
            **label_changes(targets, images.soft_labels),
            "off_diagonal": off_diagonal_mass(affinity),
            **quality.figures(),
            "pairs": top_pairs(affinity, teacher.class_names, 2),
            "seconds": seconds,
        }
        targets = images.soft_labels
        start = images.canvases if labels.start == "canvas" else None


def written(value: Any) -> str:
    """A table cell."""
    if isinstance(value, list):
        return ", ".join(f"{one} → {other} {share:.3f}" for one, other, share in value)
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) and value % 1 else f"{value:g}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
