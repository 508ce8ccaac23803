"""A whole run in an object store, through a real API: the same digests, verify, repair, and one run at a time."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import cli
from nas_core.config import RunConfig
from nas_core.errors import InputError
from storage import lease
from storage.files import digest_of_file, exclusive, files_with_content, read_json, write_bytes
from storage.locations import location
from storage.manifests import Manifest
from tasks.retrain import load_model
from tasks.run import Run, load_run, open_run
from tasks.status import progress_table
from tasks.verification import forget_damaged

Complete = Callable[[Run], dict[str, Manifest]]


@pytest.fixture(scope="module")
def stored(finished: Run, complete: Complete, object_store: str) -> Run:
    """The same tiny run, at a URL."""
    run = open_run(finished.config, f"{object_store}/whole/run")
    complete(run)
    return run


def digests(run: Run) -> dict[str, str]:
    """Of the dataset's objects, the architecture and the weights."""
    root = run.layout.root
    names = [
        name for name in files_with_content(root) if name.startswith(("dataset.zarr/", "model/weights", "search/"))
    ]
    return {name: digest_of_file(root / name) for name in names}


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["dfnas", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out + captured.err


def test_a_run_at_a_url_ends_with_the_bytes_of_one_in_a_folder(stored: Run, finished: Run, object_store: str):
    assert stored.directory == f"{object_store}/whole/run"
    assert digests(stored) == digests(finished)
    theirs, ours = read_json(finished.layout.results), read_json(stored.layout.results)
    assert ours["digests"] == theirs["digests"]
    network, about = load_model(stored.directory)
    assert not network.training
    assert about["architecture"] == ours["search"]["architecture"]
    assert stored.layout.report.read_bytes().startswith(b"<!DOCTYPE html>")
    assert "report" in progress_table(load_run(location(stored.directory)))


def test_verify_names_a_flipped_byte_and_a_deleted_object_and_repair_makes_them_anew(
    stored: Run, complete: Complete, monkeypatch, capsys
):
    before = digests(stored)
    flipped = stored.layout.dataset / "canvases" / "c" / "3" / "0" / "0" / "0"
    deleted = stored.layout.dataset / "targets" / "c" / "0" / "0"
    sound = flipped.read_bytes()
    assert command(monkeypatch, capsys, "verify", stored.directory)[0] == 0
    write_bytes(flipped, sound[:30] + bytes([sound[30] ^ 1]) + sound[31:])
    deleted.unlink()
    code, text = command(monkeypatch, capsys, "verify", stored.directory)
    assert code == 1
    assert "synthesis-round-001-shard-00001: missing or damaged dataset.zarr/canvases/c/3/0/0/0" in text
    assert "synthesis-round-000-shard-00000: missing or damaged dataset.zarr/targets/c/0/0" in text
    assert f"2 broken; `dfnas repair {stored.directory}`" in text
    times = {path.name: path.stat().st_mtime for path in stored.layout.manifest("*").parent.glob("*.json")}
    forget_damaged(stored.layout)
    complete(open_run(stored.config, stored.directory))
    assert digests(stored) == before
    after = {path.name: path.stat().st_mtime for path in stored.layout.manifest("*").parent.glob("*.json")}
    made_anew = {name for name in times if times[name] != after[name]}
    assert made_anew == {"synthesis-round-001-shard-00001.json", "synthesis-round-000-shard-00000.json"}


def test_a_second_run_at_the_same_url_is_refused(stored: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    with (
        exclusive(stored.layout.root),
        pytest.raises(InputError, match=re.escape(f"another run is working in {stored.directory}")),
    ):
        open_run(stored.config, stored.directory)


def test_another_config_at_the_same_url_is_refused(stored: Run):
    values = stored.config.model_dump(mode="json") | {"seed": 1}
    with pytest.raises(InputError, match="seed: 0 there, 1 here"):
        open_run(RunConfig.model_validate(values), stored.directory)


@pytest.mark.parametrize(
    ("url", "problem"),
    [("no-such-bucket/run", "cannot write to the run directory"), ("ftp://host/run", "neither a folder nor")],
)
def test_a_url_that_cannot_be_used_is_one_sentence(
    stored: Run, url: str, problem: str, monkeypatch, capsys, tmp_path: Path
):
    url = url if "://" in url else f"{stored.directory.partition('://')[0]}://{url}"
    config = tmp_path / "config.yaml"
    config.write_bytes(stored.layout.config.read_bytes())
    code, text = command(monkeypatch, capsys, "run", str(config), "--run-dir", url)
    assert code == 2
    assert problem in text
    assert len(text.strip().splitlines()) == 1
    code, text = command(monkeypatch, capsys, "verify", url)
    assert code == 2
    assert len(text.strip().splitlines()) == 1
