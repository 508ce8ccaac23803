"""`dfnas run --reuse`: what another run has made from the same is copied instead of made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.config_file import validated
from nas_core.config import RunConfig
from nas_core.errors import InputError
from storage.integrity import verify_run
from storage.manifests import Manifest, read_manifest
from tasks.run import Run, open_run
from tasks.stage import Stage

Complete = Callable[[Run], dict[str, Manifest]]


def changed(config: RunConfig, *settings: str) -> RunConfig:
    return validated(config.model_dump(mode="json"), settings, "test")


def files_of(run: Run, manifest: Manifest) -> dict[str, bytes]:
    return {name: (run.layout.root / name).read_bytes() for name in manifest.files}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pieces whose work is done, as opposed to copied."""
    pieces: list[str] = []
    real = Stage.work.fget
    assert real is not None

    def watched(stage: Stage) -> Callable[..., Any]:
        work = real(stage)

        def noted(run: Run, piece: str, *rest: Any, **position: int) -> Any:
            pieces.append(piece)
            return work(run, piece, *rest, **position)

        return noted

    monkeypatch.setattr(Stage, "work", property(watched))
    return pieces


def test_another_search_takes_the_images_over_and_makes_the_rest(
    finished: Run, complete: Complete, made: list[str], tmp_path: Path
):
    config = changed(finished.config, "search.strategy.epochs=2")
    run = open_run(config, str(tmp_path / "run"), reuse=finished.directory)
    done = complete(run)
    assert sorted(made) == ["dataset", "evaluate", "latency", "noise", "report", "retrain", "search"]
    alone = open_run(config, str(tmp_path / "alone"))
    expected = complete(alone)
    # Latency apart, which no two measurements agree on, and the report, which shows it.
    same = [piece for piece in expected if piece not in ("latency", "report")]
    assert all(done[piece].digest == expected[piece].digest for piece in same)
    assert all(files_of(run, done[piece]) == files_of(alone, expected[piece]) for piece in same)
    assert verify_run(run.layout, lambda *_: None).faults == ()


def test_another_training_takes_the_search_over_too(finished: Run, complete: Complete, made: list[str], tmp_path: Path):
    run = open_run(changed(finished.config, "retrain.epochs=2"), str(tmp_path / "run"), reuse=finished.directory)
    assert complete(run)["search"] == complete(finished)["search"]
    assert "retrain" in made
    assert not {"search", "synthesis-round-000-shard-00000"} & set(made)


def test_a_damaged_piece_is_made_and_not_copied(damageable: Run, complete: Complete, made: list[str], tmp_path: Path):
    outcome = damageable.layout.search
    outcome.write_bytes(outcome.read_bytes()[:-5])
    run = open_run(changed(damageable.config, "name=other"), str(tmp_path / "other"), reuse=damageable.directory)
    complete(run)
    assert "search" in made
    assert "synthesis-round-000-shard-00000" not in made


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [("seed=5", "seed: 0 there, 5 here"), ("synthesis.shards=3", "synthesis.shards: 2 there, 3 here")],
)
def test_a_run_of_other_images_is_refused_before_anything_is_written(
    finished: Run, tmp_path: Path, setting: str, sentence: str
):
    with pytest.raises(InputError, match=sentence):
        open_run(changed(finished.config, setting), str(tmp_path / "run"), reuse=finished.directory)
    assert not (tmp_path / "run").exists()


def test_the_run_directory_itself_and_a_folder_without_a_run_are_refused(finished: Run, tmp_path: Path):
    with pytest.raises(InputError, match="is the run directory itself"):
        open_run(finished.config, finished.directory, reuse=finished.directory)
    with pytest.raises(InputError, match="is no run directory"):
        open_run(finished.config, str(tmp_path / "run"), reuse=str(tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../../stolen", "/stolen"])
def test_a_manifest_that_names_files_elsewhere_is_none(finished: Run, tmp_path: Path, name: str):
    manifest = read_manifest(finished.layout.manifest("search"))
    assert manifest is not None
    forged = manifest.model_copy(update={"files": {name: next(iter(manifest.files.values()))}})
    forged.write(tmp_path / "search.json")
    assert read_manifest(tmp_path / "search.json") is None


def test_another_directory_is_advised_to_reuse_only_where_it_could(finished: Run):
    for setting, advised in (("search.strategy.epochs=7", True), ("seed=7", False), ("synthesis.shards=7", False)):
        with pytest.raises(InputError, match="choose another --run-dir") as caught:
            open_run(changed(finished.config, setting), finished.directory)
        assert ("--reuse" in str(caught.value)) == advised


def test_what_an_interrupted_attempt_had_saved_goes_when_the_piece_is_taken_over(
    finished: Run, complete: Complete, tmp_path: Path
):
    run = open_run(changed(finished.config, "retrain.epochs=2"), str(tmp_path / "run"), reuse=finished.directory)
    saved = run.layout.checkpoint("search")
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"half of a search")
    complete(run)
    assert not saved.exists()
