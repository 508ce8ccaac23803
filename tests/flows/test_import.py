"""`dfnas import-dataset` as users run it."""

from pathlib import Path

from storage.files import read_json


def test_an_export_is_imported_and_searched_on_to_the_same_architecture(
    dfnas, finished_run: Path, tiny_config: Path, tmp_path: Path
):
    images, directory = tmp_path / "images", tmp_path / "run"
    assert dfnas("export-dataset", finished_run, images, "--format", "webdataset").returncode == 0
    result = dfnas("import-dataset", images, tiny_config, "--run-dir", directory)
    assert result.returncode == 0, result.stderr
    assert f"`dfnas run {directory}/config.yaml --run-dir {directory}` searches on these images" in result.stdout
    result = dfnas("run", directory / "config.yaml", "--run-dir", directory, "--until", "search")
    assert result.returncode == 0, result.stderr
    found, original = (read_json(path / "manifests" / "search.json") for path in (directory, finished_run))
    assert found["figures"] == original["figures"]
    assert dfnas("verify", directory).returncode == 0
