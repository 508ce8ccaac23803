"""Scale transfer: what was searched small is retrained wider and deeper, and loads like any other student."""

from pathlib import Path

import pytest
import torch
from prefect.logging import disable_run_logger
from torch import nn

from nas_core.config import RunConfig
from nas_core.errors import InputError
from nas_core.ops.cost import count_parameters
from nas_core.training.augmentation import Augmentation
from nas_core.training.batches import SyntheticBatches
from nas_core.training.styles import RetrainConfig
from storage.manifests import read_manifest
from tasks import retrain
from tasks.building import preflight
from tasks.data import load_images
from tasks.retrain import distil, load_model, write_weights
from tasks.run import Run
from tasks.stages import retrain_architecture


def test_a_student_may_be_wider_and_deeper_than_what_was_searched(damageable: Run):
    small, before = load_model(damageable.directory)
    settings = damageable.config.retrain.model_dump() | {"width": 2, "cells": 3, "average_decay": 0.99, "cutout": 2}
    config = damageable.config.model_copy(update={"retrain": RetrainConfig.model_validate(settings)})
    run = damageable.model_copy(update={"config": config})
    upstream = [read_manifest(run.layout.manifest(name)) for name in ("dataset", "search")]
    with disable_run_logger():
        retrain_architecture.task.fn(run=run, upstream=upstream, position={})
    large, about = load_model(run.directory)
    assert about["architecture"] == before["architecture"]
    assert about["space"] == before["space"] | {"channels": 4, "cells": 3}
    assert count_parameters(large) > 4 * count_parameters(small)


def test_a_network_trains_on_all_images_that_are_not_held_out_varied_as_the_config_says(
    finished: Run, monkeypatch: pytest.MonkeyPatch
):
    variation = {"crop_scale": 0.5, "cutout": 2, "mixup": 0.5, "color_jitter": 0.25}
    settings = RetrainConfig.model_validate(finished.config.retrain.model_dump() | variation)
    run = finished.model_copy(update={"config": finished.config.model_copy(update={"retrain": settings})})
    given: list[SyntheticBatches] = []
    monkeypatch.setattr(retrain, "retrain", lambda _network, batches, *_: given.append(batches) or [])
    distil(run, nn.Identity(), "retrain", "key")
    (batches,) = given
    images, split = load_images(run)
    assert torch.equal(batches.canvases, images.canvases[torch.cat([split.train, split.validation])])
    assert batches.augmentation == Augmentation(**variation)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_whose_last_step_diverged_leaves_no_student(value: float, tmp_path: Path):
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    network[1].running_var.fill_(value)
    with pytest.raises(InputError, match=r"in '1\.running_var'; lower its learning_rate"):
        write_weights(network, tmp_path / "weights.safetensors")
    assert not any(tmp_path.iterdir())


def test_a_width_that_changes_what_there_is_to_choose_is_refused_before_anything_runs(finished: Run):
    values = finished.config.model_dump(mode="json")
    values["search"]["space"] = {"name": "proxyless", "stage_blocks": [1], "stage_channels": [16], "strides": [1, 1]}
    preflight(RunConfig.model_validate(values))
    values["retrain"]["width"] = 1.5
    with pytest.raises(InputError, match=r"retrain\.width = 1\.5 changes the choices"):
        preflight(RunConfig.model_validate(values))


def test_defaults_keep_the_size_of_the_search(finished: Run):
    _, about = load_model(finished.directory)
    assert about["space"] == finished.config.search.space.model_dump(mode="json")
