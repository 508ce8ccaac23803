"""SIGKILL at any stage loses at most the work in progress, and the end is the same to the byte."""

import json
import shutil
from pathlib import Path

import pytest


def stages(directory: Path, pattern: str) -> list[Path]:
    return sorted((directory / "manifests").glob(pattern))


def without_latency(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if "latency" not in name}


def begun(run: Path, stage: str) -> bool:
    """Whether a stage has saved its state, or is done: a checkpoint may come and go while nobody looks."""
    return (run / "checkpoints" / f"{stage}.pt").exists() or (run / "manifests" / f"{stage}.json").exists()


MOMENTS = {
    "in the middle of synthesis": lambda run: len(stages(run, "synthesis-*.json")) >= 2,
    "in the middle of search": lambda run: begun(run, "search"),
    "in the middle of retraining": lambda run: begun(run, "retrain"),
}


@pytest.mark.timeout(900)  # Three runs, on what may be a busy machine.
@pytest.mark.parametrize(
    "moment",
    [
        "in the middle of synthesis",
        pytest.param("in the middle of search", marks=pytest.mark.slow),
        pytest.param("in the middle of retraining", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_ends_like_uninterrupted(
    dfnas, tiny_config: Path, finished_run: Path, tmp_path: Path, moment: str
):
    directory = tmp_path / "run"
    dfnas.kill_when(lambda: MOMENTS[moment](directory), "run", tiny_config, "--run-dir", directory)
    survivors = {path: path.stat().st_mtime_ns for path in stages(directory, "*.json")}
    assert survivors
    assert not (directory / "results.json").exists()

    result = dfnas("run", tiny_config, "--run-dir", directory)

    assert result.returncode == 0, result.stderr
    resumed, uninterrupted = (json.loads((d / "results.json").read_text()) for d in (directory, finished_run))
    assert resumed["digests"] == uninterrupted["digests"]
    # Latency is measured anew; all else is the same.
    assert without_latency(resumed["student"]) == without_latency(uninterrupted["student"])
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors
    assert not list(directory.rglob("*.partial"))
    assert not list((directory / "checkpoints").iterdir())


def test_a_kill_while_the_dataset_is_laid_out_leaves_nothing_in_the_way(
    dfnas, tiny_config: Path, finished_run: Path, tmp_path: Path
):
    """A half-made Zarr group lies under a temporary name, which the next run clears."""
    directory = tmp_path / "run"
    shutil.copytree(finished_run / "dataset.zarr", directory / ".dataset.zarr.123.partial")
    result = dfnas("run", tiny_config, "--run-dir", directory, "--until", "synthesis")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "synthesis done\nthe same command without --until goes on\n"
    assert not list(directory.glob(".dataset.zarr*"))
