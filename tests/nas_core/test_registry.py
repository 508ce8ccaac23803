from typing import Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from nas_core.errors import InputError
from nas_core.registry import Registry, Spec


class CircleSpec(Spec):
    """A round shape.

    Second paragraph.
    """

    name: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0, description="radius in metres")


class SquareSpec(Spec):
    """A shape with four sides."""

    name: Literal["square"] = "square"
    side: float = Field(gt=0, description="side in metres")


@pytest.fixture
def shapes() -> Registry[str]:
    registry: Registry[str] = Registry("shape")

    @registry.register(SquareSpec)
    def square(side: float, unit: str = "m") -> str:
        return f"square of {side} {unit}"

    @registry.register(CircleSpec)
    def circle(radius: float, unit: str = "m") -> str:
        return f"circle of {radius} {unit}"

    return registry


def test_names_are_sorted_and_described_by_first_lines(shapes):
    assert shapes.names() == ["circle", "square"]
    assert shapes.describe() == {"circle": "A round shape.", "square": "A shape with four sides."}


def test_builder_gets_spec_values_and_context(shapes):
    assert shapes.build(SquareSpec(side=2)) == "square of 2.0 m"
    assert shapes.build(CircleSpec(), unit="km") == "circle of 1.0 km"


def test_unknown_name_lists_the_known_ones(shapes):
    with pytest.raises(InputError, match="there is no shape 'cube'; known: circle, square"):
        shapes.spec("cube")


def test_a_name_is_taken_once(shapes):
    with pytest.raises(ValueError, match="two shape entries are named 'circle'"):
        shapes.register(CircleSpec)(str)


def test_union_tells_specs_apart_by_name(shapes):
    adapter = TypeAdapter(shapes.union())
    assert adapter.validate_python({"name": "square", "side": 3}) == SquareSpec(side=3)
    assert adapter.validate_python({"name": "circle"}) == CircleSpec()
    with pytest.raises(ValidationError, match="cube"):
        adapter.validate_python({"name": "cube"})


def test_union_of_one_takes_that_one():
    registry: Registry[str] = Registry("shape")
    registry.register(CircleSpec)(str)
    assert TypeAdapter(registry.union()).validate_python({"name": "circle"}) == CircleSpec()


def test_a_name_alone_stands_for_its_defaults(shapes):
    assert TypeAdapter(shapes.union()).validate_python("circle") == CircleSpec()


def test_specs_are_immutable_and_refuse_unknown_keys():
    with pytest.raises(ValidationError, match="frozen"):
        CircleSpec().radius = 2.0
    with pytest.raises(ValidationError, match="raduis"):
        CircleSpec.model_validate({"raduis": 2.0})
