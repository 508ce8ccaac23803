"""Names for things that a config can choose: teachers, spaces, strategies, real data sources.

A registered thing is a pair in one file: a `Spec` (what the config says: fields, units, bounds) and a
builder (a class or function of plain values, named like the spec's fields). Adding a strategy is adding a file.
"""

import functools
import operator
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nas_core.errors import InputError

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])


class Spec(BaseModel):
    """Base of every config section: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def values(self) -> dict[str, Any]:
        """The section's fields except `name`, as plain Python values."""
        return {key: value for key, value in self if key != "name"}


class Registry(Generic[T]):
    """A map from a name to a spec and its builder.

    Args:
        kind: What is registered, in the singular; used in messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, tuple[type[Spec], Callable[..., T]]] = {}

    def register(self, spec: type[Spec]) -> Callable[[Builder], Builder]:
        """Class decorator: register a builder under the name that `spec.name` is fixed to."""
        name = spec.model_fields["name"].default

        def decorate(builder: Builder) -> Builder:
            if name in self._entries:
                raise ValueError(f"two {self.kind} entries are named '{name}'")
            self._entries[name] = (spec, builder)
            return builder

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def spec(self, name: str) -> type[Spec]:
        """The spec registered under a name.

        Raises:
            InputError: If the name is unknown; the message lists the known ones.
        """
        if name not in self._entries:
            raise InputError(f"there is no {self.kind} '{name}'; known: {', '.join(self.names())}")
        return self._entries[name][0]

    def describe(self) -> dict[str, str]:
        """Each name with the first line of its spec's docstring."""
        return {name: (self.spec(name).__doc__ or "").strip().splitlines()[0] for name in self.names()}

    def build(self, spec: Spec, **context: Any) -> T:
        """Call the builder with the spec's values and the context that configs do not hold."""
        name = spec.model_dump(include={"name"})["name"]
        self.spec(name)
        return self._entries[name][1](**spec.values(), **context)

    def union(self) -> Any:
        """The annotation of a config field that takes any registered spec, told apart by `name`.

        A name alone stands for the spec's defaults.
        """
        specs = [spec for spec, _ in self._entries.values()]
        choice: Any = specs[0]
        if len(specs) > 1:
            choice = Annotated[functools.reduce(operator.or_, specs), Field(discriminator="name")]
        return Annotated[choice, BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value)]
