"""Was the search worth it? Only as far as so many images can tell."""

import pytest

from nas_core.reporting.baselines import baseline_table, verdict


def results(found: float, *others: float, images: int = 400, measure: str = "top1"):
    def network(share: float, **more):
        return {"top1": share if measure == "top1" else None, "agreement": share, "macs": 2e6, "params": 3e3, **more}

    networks = [network(share, kind="random", title=f"network {i}") for i, share in enumerate(others)]
    return {"student": network(found), "baselines": {"measure": measure, "images": images, "networks": networks}}


@pytest.mark.parametrize(
    ("found", "others", "answer"),
    [
        (0.8, (0.5, 0.7), "Yes: the found network is 10.0 points of top-1 on real images ahead of the best baseline"),
        (0.5, (0.8, 0.2), "No: the found network is 30.0 points of top-1 on real images behind the best baseline"),
        (0.8, (0.79, 0.2), "Not shown: the found network and the best baseline"),
    ],
)
def test_the_answer_compares_with_the_best_baseline(found, others, answer):
    sentence = verdict(results(found, *others))
    assert sentence.startswith(answer)
    assert sentence.endswith("Each was trained once; another seed would move the figures.")


def test_the_margin_is_twice_the_standard_error_of_the_difference():
    """Two shares of 0.5 on 400 images: 2 sqrt(2 x 0.25 / 400) = 7.07 points."""
    assert "400 images tell apart 7.1 points" in verdict(results(0.5, 0.5))


def test_without_real_images_agreement_decides_and_is_named():
    given = results(0.8, 0.5, measure="agreement")
    assert "points of agreement with the teacher" in verdict(given)
    assert baseline_table(given)[0] == ("", "agreement", "MACs", "parameters")


def test_the_table_has_the_found_network_first():
    table = baseline_table(results(0.8, 0.5))
    assert table[1] == ("found by the search", "80.0%", "80.0%", "2 M", "3 k")
    assert [row[0] for row in table[2:]] == ["network 0"]


def test_without_baselines_there_is_nothing_to_say():
    assert baseline_table({"baselines": None}) == []
    assert verdict({"baselines": None}) == ""
