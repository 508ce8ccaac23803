"""`dfnas import-dataset` as users run it."""

from pathlib import Path

import pytest

from storage.files import read_json


@pytest.fixture(scope="module")
def imported_run(
    dfnas, finished_run: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run of the images of an export that has come to its search, and what the import said."""
    folder = tmp_path_factory.mktemp("imported")
    images, directory = folder / "images", folder / "run"
    assert dfnas("export-dataset", finished_run, images, "--format", "webdataset").returncode == 0
    imported = dfnas("import-dataset", images, tiny_config, "--run-dir", directory)
    assert imported.returncode == 0, imported.stderr
    result = dfnas("run", directory / "config.yaml", "--run-dir", directory, "--until", "search")
    assert result.returncode == 0, result.stderr
    return directory, imported.stdout


def test_an_export_is_imported_and_searched_on_to_the_same_architecture(
    dfnas, finished_run: Path, imported_run: tuple[Path, str]
):
    directory, said = imported_run
    assert f"`dfnas run {directory}/config.yaml --run-dir {directory}` searches on these images" in said
    assert "--until" not in said, "an option that import-dataset has not"
    found, original = (read_json(path / "manifests" / "search.json") for path in (directory, finished_run))
    assert found["figures"] == original["figures"]
    assert dfnas("verify", directory).returncode == 0


def test_repair_goes_up_to_the_stage_that_was_reached(dfnas, imported_run: tuple[Path, str]):
    directory, _ = imported_run
    outcome = directory / "search" / "outcome.json"
    sound = outcome.read_bytes()
    outcome.unlink()
    result = dfnas("repair", directory)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "search done\n"
    assert outcome.read_bytes() == sound
    assert (directory / "manifests" / "search.json").exists()
    assert not (directory / "manifests" / "retrain.json").exists()
