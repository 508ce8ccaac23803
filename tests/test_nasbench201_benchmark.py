"""The benchmark against NAS-Bench-201 judges what it says, on data that are alike, and goes on where it stopped."""

import dataclasses
import io
import itertools
import json
import math
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image
from prefect.states import Completed, Failed
from safetensors.torch import save_file
from scipy.stats import kendalltau

from benchmarks import nasbench201 as benchmark
from benchmarks import nasbench201_figures as figures
from benchmarks import nasbench201_intervals as intervals
from benchmarks import nasbench201_operations as operations
from benchmarks.common import TrueLabels
from nas_core.search_spaces.nasbench201 import EDGES, OPERATIONS, NasBench201
from nas_core.seeding import generator
from nas_core.settings.spaces import NasBench201Spec
from nas_core.settings.strategies import SposSpec
from nas_core.strategies import strategies
from nas_core.teachers.networks import resnet20
from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import SyntheticBatches

SPACE = NasBench201(channels=8, cells=1, input_shape=(3, 32, 32), num_classes=10)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> benchmark.Settings:
    """An untrained teacher, forty images, and a table in which an architecture is as good as it is dear."""
    folder = tmp_path_factory.mktemp("nasbench201")
    save_file(resnet20().state_dict(), folder / "teacher.safetensors")
    with tarfile.open(folder / "images.tar", "w") as archive:
        for split, label, number in itertools.product(("train", "test"), ("cat", "ship"), range(20)):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (number, 100, 200)).save(content, "JPEG")
            entry = tarfile.TarInfo(f"{split}/{label}/{number}.jpg")
            entry.size = len(content.getvalue())
            archive.addfile(entry, io.BytesIO(content.getvalue()))
    with (folder / "table.csv").open("w") as table:
        table.write("arch,accuracy\n")
        for operations in itertools.product(OPERATIONS, repeat=len(EDGES)):
            table.write(f"{SPACE.notation(operations)},{SPACE.macs(SPACE.indices(operations)) / 1e6}\n")
    return benchmark.Settings(
        weights=folder / "teacher.safetensors",
        images=folder / "images.tar",
        table=folder / "table.csv",
        column="accuracy",
        out=folder,
        synthetic=(),
        one_hot=(),
        count=24,
        validation=8,
        device="cpu",
    )


@pytest.mark.parametrize("method", benchmark.METHODS)
def test_every_row_is_a_strategy_on_the_benchmarks_space(method: str):
    config = yaml.safe_load((benchmark.ROWS / f"{method}.yaml").read_text())
    assert set(config) <= {"space", "strategy", "validation"}
    assert config["space"] == {"name": "nasbench201", "channels": 8, "cells": 1}
    strategies.build(benchmark.specs(method)[1])


@pytest.mark.parametrize(
    ("methods", "measured"),
    [
        (("darts", "sdarts-rs", "sdarts-adv", "pc-darts", "darts-es"), {"nesterov": True}),
        (("naswot",), {"images": 64}),
    ],
)
def test_rows_whose_presets_have_changed_stay_what_was_measured(methods, measured):
    for method in methods:
        assert measured.items() <= benchmark.specs(method)[1].model_dump().items()


def test_a_row_is_stale_when_a_default_that_it_relies_on_changes(settings: benchmark.Settings, monkeypatch):
    before = settings.key("noise", "spos", 0)
    space, strategy = benchmark.specs("spos")
    assert "weight_decay" not in yaml.safe_load((benchmark.ROWS / "spos.yaml").read_text())["strategy"]
    changed = strategy.model_copy(update={"weight_decay": 1.0})
    monkeypatch.setattr(benchmark, "specs", lambda _: (space, changed))
    assert settings.key("noise", "spos", 0) != before


def test_other_validation_images_make_another_row_of_the_same_supernet(settings: benchmark.Settings, monkeypatch):
    before, supernet = settings.key("noise", "spos", 0), settings.supernet("noise", "spos", 0)
    monkeypatch.setattr(benchmark, "validation_shift", lambda _: Augmentation(color_jitter=1.0))
    assert settings.key("noise", "spos", 0) != before
    assert settings.supernet("noise", "spos", 0) == supernet


def test_methods_that_train_a_supernet_alike_share_it(settings: benchmark.Settings, tmp_path: Path, monkeypatch):
    """Random search with weight sharing finds what it finds alone, and trains again only without the supernet."""
    spos, random, other = (settings.supernet("noise", method, 0) for method in ("spos", "random-ws", "darts"))
    assert spos == random != settings.supernet("noise", "spos", 1)
    assert other is None

    def short(method: str) -> tuple[NasBench201Spec, SposSpec]:
        fields = {"epochs": 1, "generations": 1, "parents": 1, "crossovers": 1, "mutants": 1}
        return NasBench201Spec(channels=2, cells=1), SposSpec(**fields, population=2 + (method != "spos"))

    monkeypatch.setattr(benchmark, "specs", short)
    monkeypatch.setattr(benchmark, "RANKED", 20)
    found = {}
    for folder, methods in (("alone", ["random-ws"]), ("shared", ["spos", "random-ws"])):
        here = dataclasses.replace(settings, out=tmp_path / folder)
        here.out.mkdir()
        for method in methods:
            benchmark.row.fn(here, "noise", method, 0)
            if method == "spos":
                monkeypatch.setattr(SyntheticBatches, "epoch", refuse_a_second_pass(SyntheticBatches.epoch))
        found[folder] = json.loads(here.row("noise", "random-ws", 0).read_text())
    assert found["shared"]["architecture"] == found["alone"]["architecture"]
    assert found["shared"]["scores"] == found["alone"]["scores"]
    here.supernet("noise", "random-ws", 0)[0].unlink()
    with pytest.raises(AssertionError, match="trains again"):
        benchmark.row.fn(here, "noise", "random-ws", 0)


def test_a_search_that_starts_from_a_trained_supernet_counts_its_time(tmp_path: Path, monkeypatch):
    now = iter([100.0, 107.0, 109.0, 500.0, 501.0])
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(monotonic=lambda: next(now)))
    kept = (tmp_path / "supernet.ckpt", "training")
    first = benchmark.Course(tmp_path / "one.ckpt", "one", kept)
    first.checkpoint().save({"supernet": {"weight": 1}})
    assert not kept[0].exists()
    first.checkpoint().save({"supernet": {"weight": 1}, "evolution": {"generation": 1}})
    second = benchmark.Course(tmp_path / "two.ckpt", "two", kept)
    assert second.checkpoint().state == {"supernet": {"weight": 1}}
    assert second.seconds() == 7.0 + 1.0


def refuse_a_second_pass(epoch):
    """Only the images that a path's BatchNorm statistics come from are drawn again."""

    def once(self, draws):
        assert draws.initial_seed() != generator(0, "search.batches", 0).initial_seed(), "trains again"
        return epoch(self, draws)

    return once


@pytest.mark.parametrize(
    ("method", "images"), [("macs", 0), ("az-nas", 0), ("naswot", 24), ("training-free", 24), ("spos", 32)]
)
def test_images_used_are_those_that_a_search_looks_at(settings: benchmark.Settings, method: str, images: int):
    """Of 24 to learn from and 8 to rate on; scores ask for 64."""
    assert benchmark.images_used(strategies.build(benchmark.specs(method)[1]), settings) == images


def test_the_rankings_judge_is_none_of_those_that_chose(settings: benchmark.Settings):
    truth = benchmark.AccuracyTable.read(settings.table, settings.column)
    names = sorted(truth.accuracies)
    order = torch.randperm(len(names), generator=generator(0, "benchmark.ranked")).tolist()
    judged = benchmark.ranked_architectures(truth)
    assert len(set(judged)) == 300
    assert not set(judged) & {names[index] for index in order[:300]}


def test_a_score_that_is_the_truth_ranks_perfectly(settings: benchmark.Settings):
    """Counting multiply-accumulates, in a table where they are the accuracy."""
    benchmark.row.fn(settings, "noise", "macs", 0)
    row = json.loads(settings.row("noise", "macs", 0).read_text())
    assert (row["tau"], row["rho"], row["macs_tau"]) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert row["accuracy"] == row["curve"][-1]
    assert row["best_of_top_10"] == max(row["accuracies"])
    assert len(row["curve"]) == len(row["curve_seconds"]) == 3
    assert sorted(row["curve_seconds"]) == row["curve_seconds"]
    assert benchmark.is_done(settings, "noise", "macs", 0)
    with pytest.raises(SystemExit, match=r"noise-macs-seed0\.json was made with other settings or images"):
        benchmark.is_done(dataclasses.replace(settings, count=25), "noise", "macs", 0)


def test_rank_figures_by_hand():
    """Twenty architectures, of which only the two best ones are ranked the wrong way round: 1 of 190 pairs."""
    accuracies = [float(number) for number in range(20)]
    figures = benchmark.rank_figures([*accuracies[:18], 19.0, 18.0], accuracies)
    assert figures["tau"] == pytest.approx(1 - 2 / 190)
    assert figures["tau_best_tenth"] == -1
    assert figures["best_of_top_10"] == 19


def test_scores_by_alpha_are_products_of_its_weights():
    """Two slots; the second one's first operation has no chance at all."""
    scores = figures.alpha_scores([[0.5, 0.5], [0.0, 0.25, 0.75]], [(0, 1), (1, 2), (1, 0)])
    assert [math.exp(score) for score in scores] == pytest.approx([0.125, 0.375, 0.0])


@pytest.mark.parametrize(("method", "ranks"), [("darts", True), ("pc-darts", False)])
def test_differentiable_rows_rank_by_alpha_and_by_a_supernet_of_all_channels(
    settings: benchmark.Settings, tmp_path: Path, monkeypatch, method: str, ranks: bool
):
    """With partial channels a path of one operation is no architecture."""
    _, strategy = benchmark.specs(method)
    short = (NasBench201Spec(channels=4, cells=1), strategy.model_copy(update={"epochs": 1}))
    monkeypatch.setattr(benchmark, "specs", lambda _: short)
    monkeypatch.setattr(benchmark, "RANKED", 20)
    here = dataclasses.replace(settings, out=tmp_path)
    benchmark.row.fn(here, "noise", method, 0)
    row = json.loads(here.row("noise", method, 0).read_text())
    assert -1 <= row["tau_of_alpha"] <= 1
    assert ("tau" in row, "scores" in row) == (ranks, ranks)
    best, found = figures.alpha_scores(
        row["gates"], [tuple(np.argmax(row["gates"], axis=1).tolist()), SPACE.choices(SPACE.parse(row["architecture"]))]
    )
    assert best >= found
    if SPACE.is_connected(tuple(np.argmax(row["gates"], axis=1).tolist())):
        assert best == found


def test_the_table_rounds_regret_last_and_leaves_out_what_a_row_lacks():
    """Regret scatters as what is found does."""
    searched = {"method": "darts", "kind": "real", "images": 64, "seconds": 3.0, "tau": 0.5, "tau_of_alpha": 0.25}
    partial = {"method": "pc-darts", "kind": "real", "images": 64, "seconds": 3.0, "tau_of_alpha": 0.75}
    rows = [searched | {"accuracy": 93.264}, searched | {"accuracy": 93.236}, partial | {"accuracy": 94.37}]
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in figures.table(rows).splitlines())
    first, second = (dict(zip(head, line, strict=True)) for line in lines)
    assert (first["found %"], first["regret"]) == ("93.25 ± 0.02", "1.12 ± 0.02")
    assert (first["tau"], first["tau of alpha"]) == ("0.500 ± 0.000", "0.250 ± 0.000")
    assert (second["tau"], second["tau of alpha"], second["regret"], second["seeds"]) == ("-", "0.750", "0.00", "1")


def test_all_rows_in_one_file_share_the_accuracies():
    rows = [{"method": "a", "accuracies": [1.0, 2.0], "scores": [2.0, 1.0]}, {"method": "b"}]
    kept = json.loads(figures.together(rows))
    assert kept == {"accuracies": [1.0, 2.0], "rows": [{"method": "a", "scores": [2.0, 1.0]}, {"method": "b"}]}
    with pytest.raises(AssertionError, match="one table"):
        figures.together([*rows, {"method": "c", "accuracies": [1.0, 3.0]}])


def test_taus_of_resamples_are_kendalls():
    """As scipy has them, ties and repeated architectures included."""
    draws = np.random.default_rng(1)
    scores, accuracies = draws.integers(5, size=20).tolist(), draws.normal(size=20).tolist()
    chosen = draws.integers(20, size=(3, 20))
    counts = np.stack([np.bincount(resample, minlength=20) for resample in chosen]).astype(float)
    wanted = [kendalltau(np.take(scores, resample), np.take(accuracies, resample))[0] for resample in chosen]
    assert intervals.taus(scores, accuracies, counts) == pytest.approx(wanted)


def test_comparisons_are_of_the_seeds_that_both_have():
    """Noise against the truth on synthetic images, and in the wrong order on real ones."""
    draws = np.random.default_rng(2)
    accuracies = draws.normal(size=100).tolist()

    def row(method: str, kind: str, seed: int, scores: list[float]) -> dict:
        return {"method": method, "kind": kind, "seed": seed, "scores": scores}

    rows = [row("naswot", "synthetic", seed, accuracies) for seed in (0, 1)]
    rows += [row("naswot", "noise", seed, draws.normal(size=100).tolist()) for seed in (1, 2)]
    rows += [
        row("naswot", "real", 0, [-accuracy for accuracy in accuracies]),
        {"method": "x", "kind": "real", "seed": 0},
    ]
    against_real, against_noise = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in intervals.lines(rows, accuracies)
    )
    assert against_real[1:] == [
        "naswot, real", "all 100", "0", "1.000", "-1.000", "+2.000", "+2.000 to +2.000",
    ]  # fmt: skip
    assert against_noise[1:4] == ["naswot, noise", "all 100", "1"]
    low, high = map(float, against_noise[-1].split(" to "))
    assert low < float(against_noise[-2]) < high < 2
    assert intervals.best_tenth([float(number) for number in range(30)]) == [29, 28, 27]


def test_operations_are_ranked_edge_by_edge():
    """Five cells, each of one operation: an operation's rank is its cell's, on every edge; ties share one."""
    cells = [[operation] * 6 for operation in operations.OPERATIONS]
    assert operations.mean_ranks(cells, [0.0, 4.0, 1.0, 3.0, 3.0]) == [[5.0, 1.0, 4.0, 2.5, 2.5]] * 6
    # A second architecture with `none` on the first edge alone, which is the best of all.
    ranks = operations.mean_ranks([*cells, ["none", *["skip_connect"] * 5]], [0.0, 4.0, 1.0, 3.0, 2.0, 5.0])
    assert ranks[0] == [3.5, 2.0, 5.0, 3.0, 4.0]
    assert ranks[1] == [6.0, 1.5, 5.0, 3.0, 4.0]


def test_architecture_weights_agree_with_ranks_where_the_better_has_more():
    ranks = [[1.0, 2.0, 3.0, 4.0, 5.0]]
    assert operations.agreement(ranks, [[0.4, 0.3, 0.15, 0.1, 0.05]]) == pytest.approx(1)
    assert operations.agreement(ranks, [[0.05, 0.1, 0.15, 0.3, 0.4]]) == pytest.approx(-1)
    cells = [[operation] * 6 for operation in operations.OPERATIONS]
    row = {"scores": [5.0, 4.0, 3.0, 2.0, 1.0], "gates": [[0.4, 0.3, 0.15, 0.1, 0.05]] * 6}
    found = operations.lines(row, cells, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert found[2:5] == [
        "| 0 to 1 | true accuracy | 5 | 4 | 3 | 2 | 1 |",
        "| 0 to 1 | score | 1 | 2 | 3 | 4 | 5 |",
        "| 0 to 1 | alpha | 0.40 | 0.30 | 0.15 | 0.10 | 0.05 |",
    ]
    assert found[-1].endswith(": 1.00")


def test_true_labels_stay_with_their_images(settings: benchmark.Settings):
    """An image's label is the brightness of its pixels, whatever the order in which it comes."""
    work = benchmark.make_task(settings, "noise", 0, SPACE)
    classes = torch.arange(300) % 10
    canvases = (20 * classes).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 36, 36)
    teacher = work.train.teacher
    batches = TrueLabels(canvases, classes, teacher, 64)
    for batch in batches.epoch(generator(0, "test")):
        seen = teacher.to_bytes(batch.images)[:, 0, 0, 0] / 20
        assert torch.equal(batch.teacher_logits.argmax(1), seen.long())


@pytest.mark.parametrize("kind", ["noise", "real", "real-labels"])
def test_all_kinds_have_windows_of_canvases_of_one_size(settings: benchmark.Settings, kind: str):
    work = benchmark.make_task(settings, kind, 0, SPACE)
    assert (len(work.train.canvases), *work.train.canvases.shape[2:]) == (24, 36, 36)
    assert (len(work.validation.canvases), *work.validation.canvases.shape[2:]) == (8, 36, 36)


def test_an_interrupted_search_counts_the_time_before(tmp_path: Path, monkeypatch):
    now = iter([100.0, 107.0, 500.0, 503.0, 504.0])
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(monotonic=lambda: next(now)))
    first = benchmark.Course(tmp_path / "row.ckpt", "key")
    first.checkpoint().save({"generation": 1})
    resumed = benchmark.Course(tmp_path / "row.ckpt", "key")
    assert resumed.checkpoint().state == {"generation": 1}
    resumed.checkpoint().save({"generation": 2})
    assert resumed.ends(2) == [7.0, 10.0]
    assert resumed.seconds() == 11.0


def test_a_row_that_fails_does_not_stop_the_others_and_is_named(settings: benchmark.Settings, monkeypatch):
    class Future:
        """As Prefect's, of a row that fails on noise."""

        def __init__(self, kind: str) -> None:
            self.state = Failed() if kind == "noise" else Completed()
            self.waited_for = False

        def wait(self) -> None:
            self.waited_for = True

    futures: list[Future] = []

    def submit(_: benchmark.Settings, kind: str, *__: object) -> Future:
        futures.append(Future(kind))
        return futures[-1]

    monkeypatch.setattr(benchmark.row, "submit", submit)
    failed = benchmark.nasbench201.fn(settings, [("noise", "macs", 0), ("real", "macs", 0)])
    assert failed == ["noise-macs-seed0"]
    assert all(future.waited_for for future in futures)


def test_a_panel_of_the_plots_is_a_method_and_says_what_it_saw(tmp_path: Path, monkeypatch):
    """Counting takes no time, so it has a ranking and no course; nothing is drawn of nothing."""
    seen: dict[str, list[str]] = {}

    save = figures._save

    def titles(figure: Figure, path: Path, *labels: str) -> None:
        seen[path.name] = [axis.get_title() for axis in figure.axes if axis.get_title()]
        save(figure, path, *labels)

    monkeypatch.setattr(figures, "_save", titles)
    ranked = {"scores": [1.0, 3.0, 2.0], "accuracies": [90.0, 94.0, 92.0], "tau": 1.0, "seed": 0}
    counted = {"method": "macs", "kind": "noise", "images": 0, "curve": [93.0, 93.7], "curve_seconds": [0.0, 0.1]}
    searched = {"method": "darts", "kind": "real", "images": 64, "curve": [90.0, 91.0], "curve_seconds": [4.0, 9.0]}
    rows = [ranked | counted, ranked | searched]
    for draw, name in ((figures.plot_rankings, "ranking.png"), (figures.plot_courses, "anytime.png")):
        draw([], tmp_path / name)
        assert not (tmp_path / name).exists()
        draw(rows, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert seen == {"ranking.png": ["darts, real: tau 1.00", "macs, no images: tau 1.00"], "anytime.png": ["darts"]}
