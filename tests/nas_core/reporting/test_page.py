"""The page is whole with every part and without any optional one, loads nothing, and runs nothing."""

import dataclasses
import html.parser

import pytest
import torch

from nas_core.reporting.page import render, report_sections
from nas_core.reporting.picture import figure_files
from nas_core.reporting.records import RunRecords
from nas_core.reporting.summary import summary_lines
from nas_core.search_spaces.base import Architecture, Slot

RESULTS = {
    "teacher": {"top1": 0.9342, "fingerprint": "f00d" * 16, "classes": 2},
    "student": {"top1": 0.8817, "agreement": 0.9312, "macs": 12_345_678, "params": 412_330},
    "search": {"architecture": "|conv~0|", "strategy": "spos", "space": "cells"},
    "retrain": {"style": "darts", "epochs": 600, "width": 2.25, "cells": 20},
    "synthesis": {
        "images": 1280,
        "rounds": 2,
        "labels": [
            {"round": 0, "label_entropy": 1.234, "label_confidence": 0.5, "top1_drift": 0.01, "top5_overlap": None},
            {"round": 1, "label_entropy": 1.3, "label_confidence": 0.4, "top1_drift": 0.02, "top5_overlap": 0.8},
        ],
    },
    "quality": {
        "images": 1024,
        "teacher_top1": 0.971,
        "rarest_class": 0.91,
        "verifier_top1": None,
        "confidence": 0.9,
        "entropy": 0.312,
        "top5_overlap": 0.777,
        "rank_correlation": None,
        "batch_norm_distance": 0.085,
        "batch_norm_distance_largest": 0.2,
        "within_class_distance": 0.15,
        "near_duplicates": 0.031,
        "clipped_pixels": 0.01,
    },
    "timings": {"synthesis": 30.0, "search": 60.0, "retrain": 20.0, "evaluation": 10.0, "total": 120.0},
    "seed": 7,
    "versions": {"dfnas": "0.1.0", "python": "3.11.9"},
    "evaluation": {"images": 10_000, "source": "torchvision CIFAR10, test split"},
    "device": "cpu",
    "latency": None,
    "baselines": None,
    "finetuned": None,
    "digests": {"dataset": "aa", "search": "bb", "model": "cc"},
}
TIMED = RESULTS | {
    "teacher": RESULTS["teacher"] | {"latency_ms": 2.345, "batch_latency_ms": 1234.5},
    "student": RESULTS["student"] | {"latency_ms": 0.5234, "batch_latency_ms": 12.3},
    "latency": {"batch_size": 32, "device": "cpu", "processor": "Abacus 9000", "threads": 2},
}
DATA_FREE = RESULTS | {
    "teacher": RESULTS["teacher"] | {"top1": None},
    "student": RESULTS["student"] | {"top1": None},
    "evaluation": {"images": 0, "source": None},
}


def make_records(classes=2, **parts):
    return RunRecords(
        **{
            "results": RESULTS,
            "config_yaml": "name: demo\n",
            "class_names": [f"class {i}" for i in range(classes)],
            "shown_classes": list(range(min(classes, 12))),
            "image_grid": torch.zeros(1, min(classes, 12), 1, 1, 2, 2, dtype=torch.uint8),
            "image_counts": torch.full((1, classes), 7),
            "target_prediction": torch.full((classes, classes), 0.2 / classes) + 0.8 * torch.eye(classes),
            "class_affinity": torch.full((classes, classes), 0.3 / classes) + 0.7 * torch.eye(classes),
            "synthesis_history": [],
            "slots": [Slot("1<-0", ("none", "conv"))],
            "architecture": Architecture(("conv",), "|conv~0|"),
        }
        | parts
    )


EVERYTHING = {
    "synthesis_history": [{"round": 0, "shard": 0, "step": step, "total": 1.0} for step in (0, 1)],
    "learning_history": [{"step": 0, "total": 1.0}],
    "batch_norm_distances": {"bn1": 0.125, "layer1.0.bn1": 0.5},
    "search_training": [{"epoch": 0, "loss": 1.0}],
    "search_candidates": [{"architecture": "|conv~0|", "macs": 3, "score": 0.5, "generation": 0}],
    "anytime": [{"generation": 0, "true_accuracy": 93.1}, {"generation": 1, "true_accuracy": 94.0}],
    "retrain_history": [{"epoch": 0, "loss": 1.0, "learning_rate": 0.1, "agreement": 0.5}],
}


class Reader(html.parser.HTMLParser):
    """Collects tags, addresses, headings and text, and checks that tags nest."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())

    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def full():
    return Reader(render(make_records(**EVERYTHING)))


@pytest.fixture(scope="module")
def bare():
    return Reader(render(make_records(results=DATA_FREE)))


def test_the_page_opens_with_the_answer(full):
    assert "names the right class for 88.2% of 10,000 real images, its teacher for 93.4%" in full.words()
    for figure in ("|conv~0|", "12.3 M", "412 k", "2 min 0 s"):
        assert figure in full.words()


def test_every_part_has_its_pictures(full):
    assert full.tags.count("img") == 3 + 3 + 3 + 1 + 2


def test_without_real_data_there_is_no_top1(bare):
    assert "judged without a single real image" in bare.words()
    assert "real images used none" in bare.words()
    assert "student's top-1" not in bare.words()


def test_parts_without_records_are_left_out(bare):
    assert bare.tags.count("img") == 4, "images, two heat maps and architecture"
    assert "Training" not in bare.text
    assert "Search" not in bare.text


def test_the_page_loads_nothing(full, bare):
    for reader in (full, bare):
        assert all(address.startswith("data:image/svg+xml;base64,") for address in reader.addresses)
        assert "link" not in reader.tags
    page = render(make_records(results=DATA_FREE))
    for elsewhere in ("http:", "https:", "file:", "url(", "@import"):
        assert elsewhere not in page


def test_provenance_says_what_real_images_were_for(full):
    assert "only for the final evaluation: 10,000 (torchvision CIFAR10, test split)" in full.words()
    assert "600 epochs, style darts, 2.25 times the channels of the search, 20 cells" in full.words()
    for value in ("f00d" * 16, "1,280 in 2 rounds", "dfnas 0.1.0, python 3.11.9"):
        assert value in full.words()


def test_quality_of_images_and_labels_is_shown(bare):
    words = bare.words()
    assert "teacher's top-1 on the classes asked for 97.1%" in words
    assert "rank correlation" not in words, "a measure without a value is left out"
    assert (
        "labels of round 1 entropy 1.3 nats, largest probability 40.0%, top-1 drift 2.0%, top-5 overlap 80.0%" in words
    )
    assert "classes that the labels join class 0 → class 1 (15.0%)" in words


def test_the_distance_of_every_batch_norm_layer_is_shown_and_can_be_read_as_numbers(full):
    assert "Where do the images differ from what the teacher learned from?" in full.words()
    pictures = [picture for section in report_sections(make_records(**EVERYTHING)) for picture in section.pictures]
    (distances,) = [picture for picture in pictures if picture.name == "batch-norm-distances"]
    assert distances.rows == [{"layer": "bn1", "distance": 0.125}, {"layer": "layer1.0.bn1", "distance": 0.5}]


def test_nothing_given_becomes_markup():
    evil = "<script>alert(1)</script>"
    page = render(
        make_records(
            class_names=[evil, "--!><img src=x onerror=alert(1)>"],
            config_yaml=f"name: {evil}",
            results=RESULTS | {"device": evil, "search": RESULTS["search"] | {"architecture": evil}},
            slots=[Slot(evil, (evil,))],
            architecture=Architecture((evil,), evil),
        )
    )
    assert "script" not in Reader(page).tags
    assert "&lt;script&gt;" in page
    assert "<img src=x" not in page


def test_many_classes_are_cut_and_the_page_says_so():
    words = Reader(render(make_records(classes=120))).words()
    assert "Shown are 10 of 120 classes." in words
    assert "Shown are 100 of 120 classes." in words
    assert "mean probability of 80.2%" in words, "over all classes: 0.8 + 0.2 / 120"


def test_classes_without_images_are_left_out_of_the_heat_map():
    """Rows of two classes with 0.9 on the diagonal, and a third class that was never asked for."""
    matrix = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [float("nan")] * 3])
    words = Reader(render(make_records(classes=3, target_prediction=matrix))).words()
    assert "mean probability of 90.0%. Shown are 2 of 3 classes." in words


def test_a_space_of_blocks_draws_them_in_a_row():
    records = make_records(slots=[Slot("layer 3", ("conv", "pool"))], architecture=Architecture(("pool",), "[1]"))
    [blocks] = next(s for s in report_sections(records) if s.anchor == "architecture").pictures
    assert "layer 3 pool" in blocks.alt
    assert blocks.rows == [{"place": "layer 3", "operation": "pool"}]
    assert [text.get_text() for text in blocks.figure.axes[0].texts] == ["layer 3", "pool"]


def test_every_kind_of_cell_has_its_graph():
    slots = [Slot(f"{kind} 2<-{source}", ("conv", "pool")) for kind in ("normal", "reduce") for source in (0, 1)]
    architecture = Architecture(("conv", "pool", "pool", "pool"), "Genotype(...)")
    reader = Reader(render(make_records(slots=slots, architecture=architecture)))
    assert "The reduce cell: nodes 0 and 1 are the outputs of the two cells before" in reader.words()
    assert reader.tags.count("img") == 3 + 2


def test_a_space_whose_slots_take_several_lists_them():
    slots = [Slot("inputs of output", ("input", "1", "2"))]
    reader = Reader(render(make_records(slots=slots, architecture=Architecture((("input", "2"),), "output(input,2)"))))
    assert "inputs of output input, 2" in reader.words()


def test_a_strategy_without_candidates_shows_its_own_curve_and_weights():
    curve = [{"epoch": epoch, "validation_loss": 1.0, "gates": [[0.5, 0.5]]} for epoch in range(2)]
    assert Reader(render(make_records(search_curve=curve))).tags.count("img") == 4 + 2


def test_the_hessian_has_a_figure_of_its_own():
    curve = [
        {"epoch": e, "validation_loss": 1.0} | ({"largest_eigenvalue": 2.0 + e} if e % 2 else {}) for e in range(4)
    ]
    search = next(s for s in report_sections(make_records(search_curve=curve)) if s.anchor == "search")
    assert [picture.name for picture in search.pictures] == ["search-curve", "hessian"]
    hessian = search.pictures[1]
    assert [(row["x"], row["y"]) for row in hessian.rows] == [(1.0, 3.0), (3.0, 5.0)]


def test_every_figure_is_saved_in_three_forms_with_its_numbers():
    files = figure_files(report_sections(make_records(**EVERYTHING)))
    stems = {name.partition(".")[0] for name in files}
    assert {"images", "teacher-sees", "label-affinity", "search-pareto", "retraining", "cell"} <= stems
    assert set(files) == {f"{stem}.{form}" for stem in stems for form in ("png", "svg", "csv")}
    assert all(files[f"{stem}.png"].startswith(b"\x89PNG") for stem in stems)
    assert files["images.csv"] == b"round,class,images\n0,class 0,7\n0,class 1,7\n"
    assert files["search-pareto.csv"] == b"architecture,macs,score,generation\n|conv~0|,3,0.5,0\n"
    assert files["cell.csv"] == b"from,to,operation\n0,1,conv\n"


def test_equal_records_give_equal_pages():
    records = make_records()
    assert render(records) == render(dataclasses.replace(records))


def test_summary_sets_teacher_beside_student():
    assert summary_lines(RESULTS) == [
        "                            teacher  student",
        "top-1 on real images          93.4%    88.2%",
        "agreement with the teacher        -    93.1%",
        "multiply-accumulates              -   12.3 M",
        "parameters                        -    412 k",
        "architecture: |conv~0|",
        "computing time: 2 min 0 s",
    ]


def test_baselines_and_fine_tuning_are_not_counted_as_what_the_student_took():
    """600 s in all, of which 120 s are the student's; the table of all work has the others too."""
    timings = RESULTS["timings"] | {"baselines": 300.0, "finetuning": 180.0, "total": 600.0}
    results = RESULTS | {"timings": timings}
    words = Reader(render(make_records(results=results))).words()
    assert "Getting it took 2 min 0 s of computing and" in words
    assert "computing time 2 min 0 s" in words
    assert "baselines 5 min 0 s" in words
    assert "wall time" not in words.lower()
    assert summary_lines(results)[-1] == "computing time: 2 min 0 s"


def test_with_a_fine_tuned_network_the_page_says_what_its_real_images_were_for():
    tuned = {"top1": 0.9, "agreement": 0.95, "trained_on": {"images": 500, "source": "npz mine.npz"}}
    words = Reader(render(make_records(results=RESULTS | {"finetuned": tuned}))).words()
    assert "used only for this figure;" not in words
    assert (
        "Real images were used only for this figure and, others, to fine-tune a copy of the student (below); the "
        "student was found and trained without any."
    ) in words


def test_latency_is_part_of_the_answer_and_says_where_it_was_measured():
    words = Reader(render(make_records(results=TIMED))).words()
    assert "for one image on this machine 0.523 ms" in words
    assert "latency, 1 image 2.35 ms 0.523 ms" in words
    assert "latency, 32 images 1.23 s 12.3 ms" in words
    assert "latency measured on Abacus 9000 (cpu, 2 threads), median of forward passes in float32" in words


def test_a_run_without_latency_says_nothing_of_it(full):
    assert "latency" not in full.words()


def test_summary_without_real_data_has_dashes():
    assert summary_lines(DATA_FREE)[1].split() == ["top-1", "on", "real", "images", "-", "-"]
