"""A grid of searches is several pieces of work, of which the search keeps the best."""

from pathlib import Path

import pytest
import torch

from flows.config_file import read_config
from nas_core.errors import InputError
from nas_core.ops.latency import LatencyTable
from nas_core.seeding import generator
from nas_core.teachers import teachers
from nas_core.training.augmentation import Augmentation
from nas_core.training.distillation import distillation_loss
from storage.errors import StorageError
from storage.files import read_json
from tasks.building import build_space, preflight
from tasks.data import load_images
from tasks.latency import write_latency_table
from tasks.run import Run, open_run
from tasks.search import search_task
from tasks.status import progress_table
from tasks.verification import forget_damaged
from tests.tasks.conftest import PROJECT, TINY

GRID = (
    "search.strategy={name: r-darts-l2, order: first, epochs: 1, grid: [{weight_decay: 1.0e-4}, {weight_decay: 5.0}]}"
)


def test_a_search_learns_from_one_part_of_the_images_and_rates_on_another(finished: Run):
    task = search_task(finished)
    images, split = load_images(finished)
    assert torch.equal(task.train.canvases, images.canvases[split.train])
    assert torch.equal(task.validation.canvases, images.canvases[split.validation])


def test_points_of_a_grid_are_made_one_by_one_and_the_best_is_kept(complete, tmp_path: Path):
    """Under a budget of latency, which the run keeps a copy of, and judged on images of other colours."""
    table = tmp_path / "latency.json"
    plain = read_config(PROJECT / "configs" / "digits.yaml", TINY)
    write_latency_table(plain, table, device="cpu", batch_size=2, repetitions=1)
    space = build_space(plain.search.space, teachers.build(plain.teacher))
    latencies = LatencyTable.from_json(table.read_text())
    smallest, dearest = space.cost_range(latencies.table(space))
    limit = (smallest + dearest) // 2 / 1e6
    latency = (f"search.latency_table={table}", f"search.max_latency_ms={limit}")
    shift = ("search.validation_color_jitter=0.5",)
    config = read_config(PROJECT / "configs" / "digits.yaml", (*TINY, *latency, *shift, GRID))
    run = open_run(config, str(tmp_path / "run"))
    manifests = complete(run)
    task = search_task(run)
    assert (task.train.augmentation, task.validation.augmentation) == (Augmentation(), Augmentation(color_jitter=0.5))
    found = read_json(run.layout.search)
    losses = [manifests[f"grid-point-00{number}"].figures["rated_loss"] for number in range(2)]
    assert [-candidate["score"] for candidate in found["candidates"]] == losses
    kept = manifests[f"grid-point-00{losses.index(min(losses))}"]
    assert found["architecture"] == manifests["search"].figures["architecture"] == kept.figures["architecture"]
    assert ["grid", "2/2"] in [line.split()[:2] for line in progress_table(run).splitlines()]
    assert read_json(run.layout.results)["search"]["table_latency_ms"] == found["latency_ms"] <= limit
    assert run.layout.latency_table.read_bytes() == table.read_bytes()
    assert latencies.provenance["batch_size"] == 2

    # What is damaged is made anew with the same bytes, and nothing else is.
    path = run.layout.records("grid-point-001")
    sound = path.read_bytes()
    path.write_bytes(sound[:-9])
    times = {piece: run.layout.manifest(piece).stat().st_mtime_ns for piece in manifests}
    assert forget_damaged(run.layout) == ["grid-point-001"]
    complete(run)
    assert path.read_bytes() == sound
    again = {piece for piece in manifests if run.layout.manifest(piece).stat().st_mtime_ns != times[piece]}
    assert again == {"grid-point-001"}

    # So is the table, which a random baseline weighs architectures by.
    run.layout.latency_table.write_bytes(table.read_bytes()[:-9])
    beside = run.model_copy(update={"config": run.config.model_copy(update={"baselines": ("random",)})})
    with pytest.raises(StorageError, match="run again, which makes costs anew"):
        complete(beside)
    complete(beside)
    assert run.layout.latency_table.read_bytes() == table.read_bytes()


def test_an_impossible_latency_is_refused_with_the_smallest_possible(tmp_path: Path):
    config = read_config(PROJECT / "configs" / "digits.yaml", TINY)
    table = tmp_path / "latency.json"
    write_latency_table(config, table, device="cpu", batch_size=1, repetitions=1)
    settings = (f"search.latency_table={table}", "search.max_latency_ms=0.001")
    with pytest.raises(InputError, match=r"max_latency_ms = 0\.001000 is below .* raise it to [0-9.]+ or more"):
        preflight(read_config(PROJECT / "configs" / "digits.yaml", (*TINY, *settings)))
    table.write_text("{}")
    with pytest.raises(InputError, match="no latency table"):
        preflight(read_config(PROJECT / "configs" / "digits.yaml", (*TINY, *settings)))
    with pytest.raises(InputError, match="no folder"):
        write_latency_table(config, tmp_path / "none" / "t.json", device="cpu", batch_size=1, repetitions=1)


def test_supernets_learn_by_the_loss_at_the_configs_temperature(finished: Run):
    search = finished.config.search.model_copy(update={"temperature": 7.5})
    run = finished.model_copy(update={"config": finished.config.model_copy(update={"search": search})})
    student, teacher = torch.randn(2, 4, 10, generator=generator(0, "logits")).unbind()
    task = search_task(run)
    assert task.temperature == 7.5
    assert torch.equal(task.objective(student, teacher), distillation_loss(student, teacher, 7.5))
