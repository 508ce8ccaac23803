"""Save the image grid of a run's report as a picture, as the README shows it.

python -m benchmarks.image_grid runs/digits docs/images/digits.png
"""

import argparse
from pathlib import Path

from nas_core.reporting.figures import image_grid
from tasks.report import report_records, rewrite_report
from tasks.run import load_run


def main() -> None:
    """Read the run, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("picture", type=Path, help="file to write, such as grid.png")
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    records = report_records(run, rewrite_report(run))
    names = [records.class_names[index] for index in records.shown_classes]
    image_grid(records.image_grid, names).savefig(arguments.picture, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
