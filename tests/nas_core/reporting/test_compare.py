"""Several runs on one page: the best one is named, and only what differs is listed."""

import copy

from nas_core.reporting.compare import ComparedRun, comparison_sections, differing_settings, render_comparison
from nas_core.reporting.picture import figure_files
from tests.nas_core.reporting.test_page import DATA_FREE, RESULTS, Reader

CONFIG = {"name": "one", "seed": 0, "search": {"strategy": {"name": "spos", "epochs": 5}, "max_macs": None}}


def runs(first=RESULTS, second=RESULTS):
    other = copy.deepcopy(CONFIG)
    other["search"]["strategy"] = {"name": "darts", "epochs": 5}
    other["search"]["max_macs"], other["name"] = 100, "two"
    better = second | {"student": second["student"] | {"agreement": 0.99, "macs": 1_000_000}}
    candidates = [{"architecture": "a", "macs": 1, "score": score, "generation": 0} for score in (0.5, 0.4, 0.9)]
    history = [{"epoch": 0, "agreement": 0.5, "loss": 1.0}, {"epoch": 1, "agreement": 0.7, "loss": 0.5}]
    return [ComparedRun("one", first, CONFIG, candidates, history), ComparedRun("two", better, other)]


def test_only_settings_that_differ_are_listed():
    assert differing_settings(runs()) == [
        ("search.strategy.name", ["spos", "darts"]),
        ("search.max_macs", ["none", "100"]),
    ]


def test_the_page_opens_with_the_best_run_and_sets_all_side_by_side():
    compared = runs(DATA_FREE, DATA_FREE)
    page = render_comparison(compared, comparison_sections(compared))
    reader = Reader(page)
    assert "two: 99.0% at 1 M multiply-accumulates" in reader.words()
    assert "agreement with the teacher 93.1% 99.0%" in reader.words()
    assert "search.max_macs none 100" in reader.words()
    assert all(address.startswith("data:image/svg+xml;base64,") for address in reader.addresses)
    assert "link" not in reader.tags


def test_runs_are_compared_by_top1_if_all_have_one_else_by_agreement():
    compared = runs(RESULTS, DATA_FREE)
    words = Reader(render_comparison(compared, comparison_sections(compared))).words()
    assert "two: 99.0% at 1 M" in words
    assert "The highest agreement with the teacher of one, two" in words
    better = RESULTS | {"student": RESULTS["student"] | {"top1": 0.95}}
    compared = runs(better, RESULTS)
    words = Reader(render_comparison(compared, comparison_sections(compared))).words()
    assert "one: 95.0% at 12.3 M" in words
    assert "The highest top-1 on real images of one, two" in words


def test_the_curves_come_as_figures_with_their_numbers():
    files = figure_files(comparison_sections(runs()))
    assert files["search-curves.csv"] == b"run,rated,best score\none,1,0.5\none,2,0.5\none,3,0.9\n"
    assert files["retraining.csv"] == b"run,epoch,agreement\none,0,0.5\none,1,0.7\n"
    assert files["accuracy-macs.csv"].splitlines()[1:] == [b"one,12345678,0.8817", b"two,1000000,0.8817"]
    assert {"accuracy-macs.png", "search-curves.svg"} <= set(files)
