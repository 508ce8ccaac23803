"""Files, leases and datasets in object stores, through real APIs."""

import builtins
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage import lease
from storage.dataset import DatasetLayout, SyntheticImages, SyntheticStore
from storage.errors import InUseError, StorageError
from storage.export import ExportFormat, export_dataset
from storage.files import (
    digest_of_file,
    exclusive,
    files_with_content,
    read_json,
    remove_leftovers,
    write_bytes,
    write_json,
)
from storage.layout import RunLayout
from storage.locations import location, reach
from storage.manifests import Manifest, read_manifest
from tests.storage.test_dataset import shard_arrays

PROJECT = Path(__file__).parents[2]
LAYOUT = DatasetLayout(rounds=2, shards=1, batch_size=4, canvas=(1, 6, 5), num_classes=3)


def test_files_are_written_read_and_listed(prefix: Path):
    write_json(prefix / "manifests" / "one.json", {"a": 1})
    write_bytes(prefix / "two", b"abc")
    assert read_json(prefix / "manifests" / "one.json") == {"a": 1}
    assert digest_of_file(prefix / "two") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files_with_content(prefix) == {"manifests/one.json", "two"}
    assert remove_leftovers(prefix) == 0
    with pytest.raises(StorageError, match="three does not exist"):
        read_json(prefix / "three")


def test_a_prefix_may_have_characters_that_mean_something_elsewhere(prefix: Path):
    layout = RunLayout(prefix / "run [1] *? 100%")
    made = Manifest(piece="noise", key="k", digest="d", files={}, figures={}, seconds=1.0)
    made.write(layout.manifest("noise"))
    assert files_with_content(layout.root) == {"manifests/noise.json"}
    assert layout.manifests() == [layout.manifest("noise")]
    assert RunLayout(prefix / "none").manifests() == []
    assert read_manifest(layout.manifest("noise")) == made


def test_a_url_of_an_unknown_kind_or_without_a_bucket_is_refused():
    for text in ("ftp://host/run", "s3://", "s3:///"):
        with pytest.raises(StorageError, match="neither a folder nor a URL like s3://bucket/run"):
            location(text)


@pytest.mark.parametrize(("url", "extra"), [("gs://bucket/run", "gcs"), ("az://bucket/run", "azure")])
def test_a_missing_package_is_named(url: str, extra: str, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *arguments, **options):
        if name == "upath":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StorageError, match=rf"{url} needs a package .* pip install 'dfnas\[{extra}\]'"):
        location(url)


def test_a_store_that_cannot_be_reached_is_one_sentence(object_store: str):
    if not object_store.startswith("s3"):
        pytest.skip("its client tries for half a minute and more")
    nobody = {name: re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:9", value) for name, value in os.environ.items()}
    program = f"from storage.locations import reach; reach('{object_store}/run')"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=nobody | {"AWS_MAX_ATTEMPTS": "1"}, cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"StorageError: cannot reach {object_store}/run: Could not connect to the endpoint URL" in result.stderr
    assert reach(object_store).name == ""


def test_log_and_cache_stay_on_this_machine(prefix: Path):
    layout = RunLayout(prefix)
    assert isinstance(layout.log, Path)
    assert isinstance(layout.cache, Path)
    assert re.match(r"(s3|gs|az)%3A%2F%2Ftests%2F", layout.log.parent.name)


@pytest.fixture
def store(prefix: Path) -> SyntheticStore:
    """A complete dataset."""
    store = SyntheticStore.create(prefix / "dataset.zarr", LAYOUT)
    for round_, shard in LAYOUT.positions():
        store.write(round_, shard, shard_arrays(10 * round_ + shard))
    store.annotate({"teacher": "abc"})
    return store


def test_a_dataset_has_the_same_objects_as_in_a_folder(store: SyntheticStore, tmp_path: Path):
    local = SyntheticStore.create(tmp_path / "dataset.zarr", LAYOUT)
    for round_, shard in LAYOUT.positions():
        local.write(round_, shard, shard_arrays(10 * round_ + shard))
    local.annotate({"teacher": "abc"})
    sizes = files_with_content(store.path)
    assert sizes == files_with_content(local.path)
    assert {name: digest_of_file(store.path / name) for name in sizes} == {
        name: digest_of_file(local.path / name) for name in sizes
    }
    images = SyntheticImages(store.path)
    assert (images.canvases == SyntheticImages(local.path).canvases).all()
    export_dataset(store.path, tmp_path / "export", ExportFormat.WEBDATASET, lambda *_: None)


def test_missing_and_damaged_objects_are_named_and_written_anew(store: SyntheticStore):
    (path,) = store.object_paths(1, 0, ("canvases",))
    sound = path.read_bytes()
    path.unlink()
    for look in (lambda: SyntheticImages(store.path), lambda: store.read(1, 0, "canvases")):
        with pytest.raises(StorageError, match="round 1 shard 0 has no canvases"):
            look()
    write_bytes(path, sound[:20] + bytes([sound[20] ^ 1]) + sound[21:])
    with pytest.raises(StorageError, match="is damaged"):
        store.read(1, 0, "canvases")
    store.write(1, 0, shard_arrays(10))
    assert path.read_bytes() == sound


def test_damaged_metadata_is_mended_and_another_layout_refused(store: SyntheticStore):
    before = {name: digest_of_file(store.path / name) for name in files_with_content(store.path)}
    write_bytes(store.path / "canvases" / "zarr.json", b"{")
    again = SyntheticStore.create(store.path, LAYOUT)
    assert again.provenance == {"teacher": "abc"}
    assert {name: digest_of_file(store.path / name) for name in files_with_content(store.path)} == before
    with pytest.raises(StorageError, match="another layout"):
        SyntheticStore.create(store.path, DatasetLayout(1, 2, 4, (1, 6, 5), 3))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    """Leases that are renewed so often that a holder on a busy machine does not lose its own."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 15)


@pytest.mark.usefixtures("quick")
def test_one_of_two_holds_a_prefix_and_gives_it_back(prefix: Path):
    with (
        exclusive(prefix),
        pytest.raises(InUseError, match=re.escape(f"another run is working in {prefix}")),
        exclusive(prefix),
    ):
        pass
    with exclusive(prefix):
        pass
    assert len(files_with_content(prefix / ".lock")) == 1


@pytest.mark.usefixtures("quick")
def test_a_lease_that_is_not_renewed_is_followed_on_by_exactly_one(prefix: Path):
    gone = {"machine": "elsewhere", "process": 1, "renewals": 7, "released": False}
    write_json(prefix / ".lock" / f"{3:010d}", gone)
    outcomes = []
    done = threading.Barrier(4)

    def attempt():
        try:
            with exclusive(prefix):
                outcomes.append("held")
                done.wait(60)
        except InUseError:
            outcomes.append("refused")
            done.wait(60)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused", "refused", "refused"]


def test_a_killed_process_of_this_machine_is_followed_on_at_once(prefix: Path):
    hold = "import sys, time; from storage.locations import location; from storage.files import exclusive\n"
    hold += "with exclusive(location(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(prefix)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
    with exclusive(prefix):
        (name,) = files_with_content(prefix / ".lock")
    assert json.loads((prefix / ".lock" / name).read_bytes())["released"] is True


def test_a_store_that_replaces_what_must_be_new_is_refused(prefix: Path, monkeypatch: pytest.MonkeyPatch):
    real = lease.file_system(prefix)

    class Careless:
        find = staticmethod(real.find)

        @staticmethod
        def pipe_file(path: str, content: bytes, mode: str) -> None:
            del mode
            real.pipe_file(path, content)

    monkeypatch.setattr(lease, "file_system", lambda _: Careless)
    with pytest.raises(StorageError, match="cannot keep two runs apart"), exclusive(prefix):
        pass
