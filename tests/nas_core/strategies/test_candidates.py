"""Rated architectures and their Pareto front."""

from nas_core.strategies.candidates import pareto_front, search_curve


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


def test_the_curve_follows_the_best_so_far_or_of_the_rung():
    """The best one of the first rung does worse in the second, and is not what the search returns."""
    scores = ((0, "a", 5.0), (0, "b", 4.0), (1, "a", 1.0), (1, "b", 2.0))
    rated = [{"generation": rung, "architecture": name, "score": score} for rung, name, score in scores]
    assert [record["architecture"] for record in search_curve(rated)] == ["a", "a"]
    curve = search_curve(rated, anew=True)
    assert [(record["architecture"], record["best_score"]) for record in curve] == [("a", 5.0), ("b", 2.0)]
    assert [record["mean_score"] for record in curve] == [4.5, 1.5]
