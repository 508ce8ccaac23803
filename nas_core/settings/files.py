"""Files and folders that a config names: `~` at the start is the home directory, as in a shell."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path.parts[0]} is the home directory of no known user") from error


UserPath = Annotated[Path, AfterValidator(_expanded)]
