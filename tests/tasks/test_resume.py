"""What is interrupted goes on from the last epoch that was saved."""

from pathlib import Path
from typing import Any

import pytest
from doubles import Interruption
from prefect.logging import disable_run_logger

from flows.config_file import validated
from storage import checkpoints
from storage.manifests import Manifest, read_manifest
from tasks.run import Run
from tasks.stages import retrain_architecture, search_architecture

EPOCHS = 3


def searched_and_trained(run: Run) -> tuple[Manifest, Manifest]:
    """Both stages, from the images that the run has; what is done is not done again."""
    dataset = read_manifest(run.layout.manifest("dataset"))
    with disable_run_logger():
        found = search_architecture.task.fn(run=run, upstream=[dataset, [], []], position={})
        return found, retrain_architecture.task.fn(run=run, upstream=[dataset, found], position={})


def test_interrupted_search_and_training_repeat_no_epoch_and_end_with_the_same_bytes(
    damageable: Run, monkeypatch: pytest.MonkeyPatch
):
    """Each dies after its first of three epochs."""
    settings = (f"search.strategy.epochs={EPOCHS}", f"retrain.epochs={EPOCHS}")
    config = validated(damageable.config.model_dump(mode="json"), settings, "test")
    run = damageable.model_copy(update={"config": config})
    saves: list[str] = []
    save_checkpoint = checkpoints.save_checkpoint

    def save_and_die(path: Path, key: str, state: dict[str, Any]) -> None:
        save_checkpoint(path, key, state)
        saves.append(path.stem)
        if saves.count(path.stem) == 1:
            raise Interruption

    with monkeypatch.context() as dying:
        dying.setattr(checkpoints, "save_checkpoint", save_and_die)
        for _ in ("search", "retrain"):
            with pytest.raises(Interruption):
                searched_and_trained(run)
        resumed = searched_and_trained(run)
    assert saves == ["search"] * EPOCHS + ["retrain"] * EPOCHS

    for manifest in resumed:
        run.layout.manifest(manifest.piece).unlink()
    whole = searched_and_trained(run)
    assert [manifest.digest for manifest in whole] == [manifest.digest for manifest in resumed]
