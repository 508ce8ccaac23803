"""Scale transfer: the settings of a space for networks wider or deeper than those that were searched."""

from typing import ClassVar

from pydantic import ValidationError

from nas_core.errors import InputError
from nas_core.registry import Spec


class ScalableSpec(Spec):
    """Base of the spaces' settings; says which of them make a found network wide and deep.

    Attributes:
        width_field: The field that holds the network's channels: a number, or one per stage.
        depth_field: The field that holds its number of cells; None for a space in which each block is a choice of its
            own, so that there is nothing to repeat.
    """

    width_field: ClassVar[str]
    depth_field: ClassVar[str | None] = None

    def scaled(self, width: float, cells: int | None) -> "ScalableSpec":
        """The settings with other sizes of the found network.

        Args:
            width: Factor on its channels; they are rounded to even numbers.
            cells: Its cells, counted as in `depth_field`; None: as they are.

        Raises:
            InputError: If the space has no cells to repeat, or does not take the sizes.
        """
        values = self.model_dump()
        name = values["name"]
        if cells is not None:
            if self.depth_field is None:
                raise InputError(
                    f"retrain.cells = {cells} has no meaning in search space '{name}', where every block is a choice "
                    "of its own; leave it out, and set retrain.width"
                )
            values[self.depth_field] = cells
        if width != 1:
            channels = values[self.width_field]
            wider = [
                max(2, 2 * round(c * width / 2)) for c in (channels if isinstance(channels, tuple) else [channels])
            ]
            values[self.width_field] = tuple(wider) if isinstance(channels, tuple) else wider[0]
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            detail = error.errors()[0]
            raise InputError(
                f"retrain.width = {width} or retrain.cells = {cells} does not fit search space '{name}': "
                f"{'.'.join(map(str, detail['loc']))} would be {detail['input']!r}; {detail['msg'].lower()}"
            ) from error
