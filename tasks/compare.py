"""Several finished runs on one page."""

from collections.abc import Sequence
from pathlib import Path

from nas_core.errors import InputError
from nas_core.reporting.compare import ComparedRun, comparison_sections, render_comparison
from nas_core.reporting.picture import figure_files
from storage.files import read_json, write_bytes
from tasks.run import load_run, refuse_unfinished
from tasks.verification import check_pieces


def compare(directories: Sequence[Path], page: Path) -> list[Path]:
    """Write the page, and its figures with their numbers into a folder beside it.

    Args:
        directories: Run directories, in the order of the page; at least two.
        page: The HTML file; a file that is there is replaced. Its figures go to `<stem>-figures`.

    Returns:
        All files.

    Raises:
        InputError: If there are fewer than two, one holds no finished run, or one is given twice.
        StorageError: If a file of one is missing or damaged.
    """
    if len(directories) < 2:
        raise InputError("a comparison needs at least two run directories")
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise InputError("a run directory is given twice; give each once")
    runs = [_compared(path, label) for path, label in zip(resolved, _labels(resolved), strict=True)]
    sections = comparison_sections(runs)
    folder = page.with_name(f"{page.stem}-figures")
    files = {folder / name: content for name, content in figure_files(sections).items()}
    files = {page: render_comparison(runs, sections).encode(), **files}
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)


def _labels(directories: Sequence[Path]) -> list[str]:
    """Names of the directories, with as many parents before them as tell them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in directories}) < len(directories):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in directories]


def _compared(directory: Path, label: str) -> ComparedRun:
    run = load_run(directory)
    layout = run.layout
    refuse_unfinished(run, layout.results)
    check_pieces(layout, "search", "retrain", "report")
    return ComparedRun(
        label=label,
        results=read_json(layout.results),
        config=run.config.content(),
        search_candidates=read_json(layout.search)["candidates"],
        retrain_history=read_json(layout.training),
    )
