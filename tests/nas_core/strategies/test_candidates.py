"""Rated architectures and their Pareto front."""

from nas_core.strategies.candidates import pareto_front


def rated(*points: tuple[int, float]) -> list[dict]:
    return [{"architecture": str(index), "macs": macs, "score": score} for index, (macs, score) in enumerate(points)]


def test_the_front_holds_what_nothing_else_beats():
    """(3, 1) is dearer and worse than (2, 5); (2, 4) costs the same as (2, 5) and scores less."""
    points = rated((3, 1), (2, 5), (1, 2), (4, 6), (2, 4))
    assert [(c["macs"], c["score"]) for c in pareto_front(points)] == [(1, 2), (2, 5), (4, 6)]


def test_of_equals_the_first_is_kept():
    assert [c["architecture"] for c in pareto_front(rated((1, 1), (1, 1)))] == ["0"]


def test_nothing_rated_has_no_front():
    assert pareto_front([]) == []
