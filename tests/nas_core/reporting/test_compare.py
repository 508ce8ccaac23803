"""Several runs on one page: the best one is named, and only what differs is listed."""

import copy

from nas_core.reporting.compare import ComparedRun, comparison_sections, differing_settings, render_comparison
from nas_core.reporting.picture import figure_files
from tests.nas_core.reporting.test_page import DATA_FREE, RESULTS, TIMED, Reader

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


def text_of(*results):
    """The text of the page that compares two runs."""
    compared = runs(*results)
    return Reader(render_comparison(compared, comparison_sections(compared))).words()


def test_latencies_stand_in_a_row_of_their_batch_size_and_name_their_machine():
    other = TIMED | {"latency": TIMED["latency"] | {"batch_size": 64, "processor": "Slide Rule 3"}}
    said = text_of(TIMED, other)
    assert "latency, 1 image 0.523 ms 0.523 ms" in said
    assert "latency, 32 images 12.3 ms - latency, 64 images - 12.3 ms" in said
    assert "latency measured on Abacus 9000 (cpu, 2 threads), median of forward passes in float32 Slide Rule 3" in said


def test_a_run_without_latency_is_compared_with_one_that_has_it():
    """Of an earlier version the key itself is missing."""
    earlier = {name: value for name, value in RESULTS.items() if name != "latency"}
    for without in (RESULTS, earlier):
        assert "latency, 32 images 12.3 ms -" in text_of(TIMED, without)
        assert "latency, 32 images - 12.3 ms" in text_of(without, TIMED)
    assert "latency" not in text_of(earlier, RESULTS)


def test_runs_that_were_judged_by_other_images_or_teachers_are_said_not_to_be_comparable():
    said = "not strictly comparable"
    assert said not in text_of(RESULTS, RESULTS)
    assert "judged by 10,000 real images (torchvision CIFAR10, test split) 10,000 real" in text_of(RESULTS, RESULTS)
    fewer = RESULTS | {"evaluation": RESULTS["evaluation"] | {"images": 500}}
    assert f"judged on different real images (see 'judged by'), so their top-1 on real images is {said}" in text_of(
        RESULTS, fewer
    )
    assert said not in text_of(DATA_FREE, DATA_FREE)
    for other in (
        {"teacher": DATA_FREE["teacher"] | {"fingerprint": "beef" * 16}},
        {"digests": DATA_FREE["digests"] | {"dataset": "dd"}},
        {"seed": 8},
    ):
        assert f"agreement with the teacher is {said}" in text_of(DATA_FREE, DATA_FREE | other)
    assert said not in text_of(RESULTS, RESULTS | {"digests": RESULTS["digests"] | {"dataset": "dd"}})


def test_a_run_of_imported_images_is_marked():
    origin = {"path": "/images", "teacher": None, "digest": None}
    imported = RESULTS | {"synthesis": RESULTS["synthesis"] | {"imported": origin}}
    said = text_of(RESULTS, imported)
    assert "The images of two were imported: dfnas cannot know that they are data-free." in said
    assert "images 1,280 synthetic 1,280 imported" in said
    assert "Data-free architecture search" not in said
    assert "Data-free architecture search" in text_of(RESULTS, RESULTS)


def test_the_curves_come_as_figures_with_their_numbers():
    files = figure_files(comparison_sections(runs()))
    assert files["search-curves.csv"] == b"run,rated,best score\none,1,0.5\none,2,0.5\none,3,0.9\n"
    assert files["retraining.csv"] == b"run,epoch,agreement\none,0,0.5\none,1,0.7\n"
    assert files["accuracy-macs.csv"].splitlines()[1:] == [b"one,12345678,0.8817", b"two,1000000,0.8817"]
    assert {"accuracy-macs.png", "search-curves.svg"} <= set(files)
