"""How numbers are written, at the edges where units change."""

import pytest

from nas_core.reporting.wording import amount, duration, percent, shortened, spread


@pytest.mark.parametrize(("share", "text"), [(0.9123, "91.2%"), (1.0, "100.0%"), (0.0, "0.0%"), (None, "-")])
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1 k"), (12_345_678, "12.3 M"), (999_999, "1 M"), (2.5e9, "2.5 G"), (None, "-")],
)
def test_amount(number, text):
    assert amount(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (724, "12 min 4 s"), (3720, "1 h 2 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_long_names_end_in_an_ellipsis():
    assert shortened("automobile", 10) == "automobile"
    assert shortened("automobiles", 10) == "automobil…"


def test_spread_keeps_both_ends():
    assert spread(3, 6) == [0, 1, 2]
    assert spread(101, 3) == [0, 50, 100]
