"""What a run shows in Prefect's UI while it goes on: progress, tables, pictures.

Nothing of it is needed for the result: outside of a Prefect task nothing is shown, and a server that does not take an
artifact costs a warning, not the work.
"""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext

from nas_core.checkpoint import Progress
from tasks.progress import progress_bar
from tasks.stopping import STOP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS_BETWEEN_UPDATES = 2.0


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show rows under a key of lower case, digits and dashes; the newest version under a key is the one on top."""
    _show(lambda: create_table_artifact([dict(row) for row in rows], key=key, description=description))


def show_text(key: str, markdown: str, description: str) -> None:
    """Show Markdown."""
    _show(lambda: create_markdown_artifact(markdown, key=key, description=description))


def show_link(key: str, link: str, text: str, description: str) -> None:
    """Show a link."""
    _show(lambda: create_link_artifact(link, text, key=key, description=description))


def show_pictures(key: str, title: str, pictures: Sequence[tuple["Figure", str]], description: str) -> None:
    """Show figures with a caption each, one below the other."""
    show_text(key, "\n\n".join([f"# {title}", *(embedded(*picture) for picture in pictures)]), description)


def embedded(figure: "Figure", caption: str) -> str:
    """A figure as Markdown that needs no file."""
    from nas_core.reporting.style import drawn  # Matplotlib, for those who have drawn something.

    image = base64.b64encode(drawn(figure, "png")).decode()
    return f"{caption}\n\n![{caption}](data:image/png;base64,{image})"


def task_progress(piece: str, key: str | None = None) -> Progress:
    """A `Progress` for the terminal and, in a Prefect task, for the UI: updated every few seconds, and at the end.

    Args:
        piece: The piece of work, as a title.
        key: Key of the artifact, for work that is there from the start; None: it belongs to its task run alone, and is
            made only if the work takes longer than a moment.
    """
    bar = progress_bar(piece)
    if TaskRunContext.get() is None:
        return bar
    artifact: UUID | None = None
    failed, last = False, time.monotonic() - (SECONDS_BETWEEN_UPDATES if key else 0.0)

    def show(done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal artifact, failed, last
        bar(done, total, figures)
        due = time.monotonic() - last >= SECONDS_BETWEEN_UPDATES or (artifact is not None and done >= total)
        if failed or not due:
            return
        words = f"{piece}: step {done:,} of {total:,}" + "".join(f", {n} {v:.4g}" for n, v in figures.items())
        share = 100.0 * done / total
        known = artifact
        if known is None:
            artifact = _show(lambda: create_progress_artifact(share, key=key, description=words))
        else:
            artifact = _show(lambda: update_progress_artifact(known, share, description=words))
        failed = artifact is None
        last = time.monotonic()

    return show


def _show(create: Callable[[], Any]) -> Any:
    """What the server answers; None outside of Prefect, if it refused, or if this process has been asked to end.

    Whoever ends a run often ends its embedded server with it, and Prefect would call that one for minutes, while the
    work waits that is to save its state.
    """
    if STOP.is_set() or (TaskRunContext.get() is None and FlowRunContext.get() is None):
        return None
    try:
        return create()
    except Exception as error:  # noqa: BLE001 - whatever keeps a picture from the UI must not end hours of work
        get_run_logger().warning("an artifact could not be shown: %s", error)
        return None
