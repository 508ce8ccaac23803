"""Progress bars on the terminal: one at a time, quiet where the output is no terminal."""

from tqdm import tqdm

from nas_core.checkpoint import Progress


def progress_bar(title: str) -> Progress:
    """A `Progress` that draws a bar and removes nothing when done; silent if standard error is no terminal."""
    bar: tqdm | None = None

    def show(done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, initial=done - 1, desc=title, disable=None, dynamic_ncols=True)
        if figures:
            bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return show
