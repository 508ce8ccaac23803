"""Names for things that a config can choose: teachers, spaces, strategies, real data sources.

A registered thing is a `Spec` (what the config says: fields, units, bounds; in `nas_core/settings`) and a builder (a
class or function of plain values, named like the spec's fields).
"""

import functools
import importlib
import operator
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nas_core.errors import InputError

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])
SpecType = TypeVar("SpecType", bound="Spec")


class Spec(BaseModel):
    """Base of every config section: immutable; a misspelt key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def values(self) -> dict[str, Any]:
        """The section's fields except `name`, as plain Python values."""
        return {key: value for key, value in self if key != "name"}


class Registry(Generic[T]):
    """A map from a name to a spec and its builder.

    Args:
        kind: What is registered, in the singular; used in messages.
        builders: The package that registers the builders when it is imported, which happens when the first one is
            needed; None: they are registered beside the specs.
    """

    def __init__(self, kind: str, builders: str | None = None) -> None:
        self.kind = kind
        self._package = builders
        self._specs: dict[str, type[Spec]] = {}
        self._builders: dict[type[Spec], Callable[..., T]] = {}

    def declare(self, spec: type[SpecType]) -> type[SpecType]:
        """Class decorator of a spec: a config can choose it under the name that `spec.name` is fixed to.

        It has a builder of its own, or that of the spec which it extends.
        """
        name = spec.model_fields["name"].default
        if self._specs.get(name, spec) is not spec:
            raise ValueError(f"two {self.kind} entries are named '{name}'")
        self._specs[name] = spec
        return spec

    def register(self, spec: type[Spec]) -> Callable[[Builder], Builder]:
        """Decorator of a builder: it makes what a spec, and those that extend it, describe."""
        self.declare(spec)

        def decorate(builder: Builder) -> Builder:
            if spec in self._builders:
                raise ValueError(f"two {self.kind} entries are named '{spec.model_fields['name'].default}'")
            self._builders[spec] = builder
            return builder

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._specs)

    def spec(self, name: str) -> type[Spec]:
        """The spec registered under a name.

        Raises:
            InputError: If the name is unknown; the message lists the known ones.
        """
        if name not in self._specs:
            raise InputError(f"there is no {self.kind} '{name}'; known: {', '.join(self.names())}")
        return self._specs[name]

    def describe(self) -> dict[str, str]:
        """Each name with the first line of its spec's docstring."""
        return {name: (self.spec(name).__doc__ or "").strip().splitlines()[0] for name in self.names()}

    def build(self, spec: Spec, **context: Any) -> T:
        """Call the builder with the spec's values and the context that configs do not hold."""
        if self._package is not None:
            importlib.import_module(self._package)
        self.spec(spec.model_dump(include={"name"})["name"])
        builder = next(self._builders[base] for base in type(spec).__mro__ if base in self._builders)
        return builder(**spec.values(), **context)

    def union(self) -> Any:
        """The annotation of a config field that takes any registered spec, told apart by `name`.

        A name alone stands for the spec's defaults.
        """
        specs = list(self._specs.values())
        choice: Any = specs[0]
        if len(specs) > 1:
            choice = Annotated[functools.reduce(operator.or_, specs), Field(discriminator="name")]
        return Annotated[choice, BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value)]
