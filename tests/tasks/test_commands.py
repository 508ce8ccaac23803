"""`dfnas verify` and `dfnas export-dataset` on a finished run: what they say, and with which exit code they leave."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows import cli
from tasks.run import Run


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str):
    """Exit code, standard output and standard error, as the installed command gives them."""
    monkeypatch.setattr("sys.argv", ["dfnas", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0), *capsys.readouterr()


def test_a_sound_run_passes(finished: Run, monkeypatch, capsys):
    code, text, _ = command(monkeypatch, capsys, "verify", finished.directory)
    assert code == 0
    assert text.strip().endswith("files are sound")
    code, text, _ = command(monkeypatch, capsys, "verify", finished.directory, "--json")
    assert code == 0
    assert json.loads(text)["broken"] == []


def test_broken_pieces_are_named_and_nothing_is_changed(damageable: Run, monkeypatch, capsys):
    (damageable.layout.search).unlink()
    damageable.layout.config.write_text("name: [")
    code, text, error = command(monkeypatch, capsys, "verify", damageable.directory)
    assert code == 1
    assert "search: missing or damaged search/outcome.json" in text
    assert "run directory: missing or damaged config.yaml" in text
    assert "2 broken; `dfnas repair" in error
    assert damageable.layout.manifest("search").exists()
    code, text, _ = command(monkeypatch, capsys, "verify", damageable.directory, "--json")
    assert code == 1
    assert json.loads(text)["broken"] == [
        {"piece": "search", "files": ["search/outcome.json"]},
        {"piece": None, "files": ["config.yaml"]},
    ]


@pytest.mark.parametrize("name", ["status", "report", "repair"])
def test_a_damaged_config_is_one_sentence(damageable: Run, monkeypatch, capsys, name: str):
    damageable.layout.config.write_text("name: [")
    code, text, error = command(monkeypatch, capsys, name, damageable.directory)
    assert code == 2
    assert "config.yaml" in error
    assert len((text + error).strip().splitlines()) == 1


def test_verify_needs_neither_prefect_nor_a_teacher(finished: Run):
    """Every module that could load the one or the other stays out."""
    program = (
        "import sys; from flows import cli; sys.argv = ['dfnas', 'verify', sys.argv[1]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('prefect', 'nas_core.teachers', 'tasks.run') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, finished.directory], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_an_export_counts_its_images(finished: Run, monkeypatch, capsys, tmp_path):
    out = str(tmp_path / "out")
    code, text, _ = command(monkeypatch, capsys, "export-dataset", finished.directory, out)
    assert (code, text.strip()) == (0, f"32 images in {out}")
    code, _, error = command(monkeypatch, capsys, "export-dataset", finished.directory, out, "--format", "tfrecord")
    assert code == 2
    assert "--format tfrecord is unknown; choose from imagefolder, webdataset" in error


def test_every_figure_of_the_report_lies_beside_it_and_belongs_to_the_run(finished: Run):
    stems = {path.stem for path in finished.layout.figures.iterdir()}
    assert {"images", "teacher-sees", "label-affinity", "synthesis-losses", "search-curve", "retraining"} <= stems
    assert {path.name for path in finished.layout.figures.iterdir()} == {
        f"{stem}.{form}" for stem in stems for form in ("png", "svg", "csv")
    }
    manifest = json.loads(finished.layout.manifest("report").read_text())
    assert "figures/images.csv" in manifest["files"]


def test_compare_sets_runs_side_by_side(damageable: Run, finished: Run, monkeypatch, capsys, tmp_path):
    page = tmp_path / "both.html"
    command(monkeypatch, capsys, "compare", finished.directory, damageable.directory, "--output", str(page))
    labels = ["/".join(Path(run.directory).parts[-2:]) for run in (finished, damageable)]
    assert all(label in page.read_text() for label in labels)
    assert "None: the runs have the same config." in page.read_text()
    assert (tmp_path / "both-figures" / "accuracy-macs.csv").exists()


REFUSED = {
    "compare {finished} {unfinished} --output {new}": "is not finished",
    "report {unfinished}": "is not finished",
    "export {unfinished} --output {new}": "is not finished",
    "export-dataset {finished} {there}": "exists: choose a folder that does not",
    "init --teacher torchvision:resnet18 --output {there}": "exists; choose another --output",
}


@pytest.mark.parametrize("line", list(REFUSED))
def test_an_unfinished_run_and_a_target_that_is_there_are_bad_input(
    damageable: Run, finished: Run, monkeypatch, capsys, tmp_path: Path, line: str
):
    damageable.layout.results.unlink()
    damageable.layout.evaluation.unlink()
    (tmp_path / "there").touch()
    paths = {"finished": finished.directory, "unfinished": damageable.directory}
    words = line.format(**paths, there=tmp_path / "there", new=tmp_path / "new").split()
    code, text, error = command(monkeypatch, capsys, *words)
    assert code == 2
    assert REFUSED[line] in error
    assert len((text + error).strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_command_to_copy_is_quoted_for_the_shell(damageable: Run, monkeypatch, capsys, tmp_path: Path):
    directory = Path(damageable.directory).rename(tmp_path / "my run")
    (directory / "report.html").unlink()
    _, _, error = command(monkeypatch, capsys, "verify", str(directory))
    assert f"`dfnas repair '{directory}'` makes them anew" in error


def test_compare_refuses_what_cannot_be_compared(damageable: Run, finished: Run, monkeypatch, capsys, tmp_path):
    def complaint(*directories: str) -> str:
        code, _, error = command(monkeypatch, capsys, "compare", *directories, "--output", str(tmp_path / "c.html"))
        assert code == 2
        return error

    assert "at least two" in complaint(finished.directory)
    assert "given twice" in complaint(finished.directory, finished.directory)
    damageable.layout.results.unlink()
    assert "is not finished" in complaint(finished.directory, damageable.directory)
    assert not (tmp_path / "c.html").exists()
