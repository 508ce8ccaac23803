"""Damage to a run directory is named, and running again makes exactly that anew, to the byte."""

import errno
import json
import os
import random
import shutil
from pathlib import Path
from unittest import mock

import pytest
from prefect.serializers import JSONSerializer
from safetensors.torch import load_file, save_file

from nas_core.config import RunConfig
from nas_core.errors import InputError
from nas_core.exporting import ModelFormat
from nas_core.settings.synthesis import GeneratorSpec
from storage.errors import StorageError
from storage.files import exclusive
from storage.integrity import Fault, take_stock, verify_run
from storage.manifests import Provenance
from tasks.compare import compare
from tasks.export import export_student
from tasks.report import rewrite_report
from tasks.retrain import load_finetuned, load_model
from tasks.run import Run, load_run, open_run
from tasks.stage import piece_name
from tasks.verification import drop_unfounded_results, forget_damaged

UNJUDGED = {".lock"}
"""Files of a run directory in which nothing can be wrong."""


def quiet(_done: int, _total: int, _figures: dict[str, float]) -> None:
    """No progress bar."""


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


def files_of(run: Run) -> dict[str, bytes]:
    root = run.layout.root
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def without_seconds(content: bytes) -> object:
    """A manifest without its wall time, and so without the checksum over it."""
    return {key: value for key, value in json.loads(content).items() if key not in ("seconds", "checksum")}


def assert_same_run(run: Run, reference: Run) -> None:
    """Equal to the byte, except for how long a piece took."""
    ours, theirs = files_of(run), files_of(reference)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name.startswith("manifests/"):
            assert without_seconds(ours[name]) == without_seconds(theirs[name]), name
        else:
            assert ours[name] == theirs[name], name


def test_a_sound_run_has_no_faults(finished: Run):
    verification = verify_run(finished.layout, quiet)
    assert verification.faults == ()
    assert verification.files > 40


def test_one_flipped_byte_in_any_file_is_found(damageable: Run):
    draws = random.Random(0)
    for name, content in files_of(damageable).items():
        if name in UNJUDGED:
            continue
        path = damageable.layout.root / name
        for _ in range(1):
            flip(path, draws.randrange(len(content)))
            faults = verify_run(damageable.layout, quiet).faults
            assert any(name in fault.files for fault in faults), name
            path.write_bytes(content)


SHARD_OBJECT = "dataset.zarr/canvases/c/3/0/0/0"
BROKEN = {
    SHARD_OBJECT: {"synthesis-round-001-shard-00001"},
    "dataset.zarr/targets/zarr.json": {"noise"},
    "dataset.zarr/zarr.json": {"noise", "dataset"},
    "manifests/search.json": {"search"},
    "search/outcome.json": {"search"},
    "model/weights.safetensors": {"retrain"},
    "report.html": {"report"},
    "records/dataset.json": {"dataset"},
    "config.yaml": set(),
    "manifest.json": set(),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_flipped_byte_is_made_good_and_nothing_else_is_done(damageable: Run, finished: Run, complete, name: str):
    manifests = {path: path.stat().st_mtime_ns for path in damageable.layout.manifest("*").parent.iterdir()}
    flip(damageable.layout.root / name, 40)
    assert {fault.piece for fault in verify_run(damageable.layout, quiet).faults} - {None} == BROKEN[name]
    repaired = open_run(damageable.config, damageable.directory)
    forget_damaged(repaired.layout)
    complete(repaired)
    assert_same_run(damageable, finished)
    assert {path.stem for path in manifests if path.stat().st_mtime_ns != manifests[path]} == BROKEN[name]


TRUSTED = {
    "model/weights.safetensors": {"load_model", "report", "compare", "export"},
    "model/architecture.json": {"load_model", "report", "compare", "export"},
    "manifests/retrain.json": {"load_model", "report", "compare", "export"},
    "search/outcome.json": {"report", "compare"},
    "results.json": {"compare", "export"},
}
"""A file of a finished run, and who reads it."""


@pytest.mark.parametrize("name", list(TRUSTED))
def test_who_reads_a_damaged_file_of_a_finished_run_is_told_so(
    damageable: Run, finished: Run, tmp_path: Path, name: str
):
    """A flipped bit in a weights file is otherwise another network, which answers as if nothing had happened."""
    content = (damageable.layout.root / name).read_bytes()
    flip(damageable.layout.root / name, content.index(b"0.") + 2 if name == "results.json" else -40)
    readers = {
        "load_model": lambda: load_model(damageable.directory),
        "report": lambda: rewrite_report(damageable),
        "compare": lambda: compare([Path(finished.directory), damageable.layout.root], tmp_path / "page.html"),
        "export": lambda: export_student(damageable, ModelFormat.SAFETENSORS, tmp_path / "student"),
    }
    for reader in TRUSTED[name]:
        with pytest.raises(StorageError, match=rf"{Path(name).name} is missing or damaged; `dfnas repair .*anew"):
            readers[reader]()
    assert list(tmp_path.iterdir()) == [damageable.layout.root]


def test_what_a_run_has_not_come_to_is_not_called_damaged(damageable: Run, tmp_path: Path):
    with pytest.raises(StorageError, match="has no finished finetune"):
        load_finetuned(damageable.directory)
    with pytest.raises(StorageError, match=f"{tmp_path / 'mistyped'} has no finished retrain"):
        load_model(tmp_path / "mistyped")
    damageable.layout.manifest("search").unlink()
    with pytest.raises(StorageError, match="has no finished search"):
        rewrite_report(damageable)


def with_generator(run: Run) -> RunConfig:
    """The tiny config with images that a generator draws."""
    engine = GeneratorSpec(steps=6, snapshots=2, warmup=1, adaptation=2, latent=8, width=4)
    synthesis = run.config.synthesis.model_copy(update={"rounds": 1, "engine": engine})
    return run.config.model_copy(update={"synthesis": synthesis})


@pytest.mark.parametrize("fault", ["flipped", "deleted"])
def test_a_damaged_generator_is_learned_again_and_no_shard_is_made_anew(
    finished: Run, tmp_path: Path, complete, fault: str
):
    config = with_generator(finished)
    run = open_run(config, str(tmp_path / "run"))
    complete(run)
    reference, manifests = files_of(run), run.layout.manifest("*").parent
    times = {path.stem: path.stat().st_mtime_ns for path in manifests.iterdir()}
    if fault == "flipped":
        flip(run.layout.learned, 1000)
    else:
        run.layout.learned.unlink()
    assert {found.piece for found in verify_run(run.layout, quiet).faults} == {"learn"}
    forget_damaged(run.layout)
    complete(open_run(config, run.directory))
    assert {path.stem for path in manifests.iterdir() if path.stat().st_mtime_ns != times[path.stem]} == {"learn"}
    assert run.layout.learned.read_bytes() == reference[str(run.layout.learned.relative_to(run.layout.root))]
    assert verify_run(run.layout, quiet).faults == ()


def test_the_report_notices_a_damaged_record_of_learning(finished: Run, tmp_path: Path, complete):
    run = open_run(with_generator(finished), str(tmp_path / "run"))
    complete(run)
    flip(run.layout.records("learn"), 40)
    run.layout.manifest("report").unlink()
    with pytest.raises(StorageError, match="run again, which makes learn anew"):
        complete(run)
    complete(run)
    assert verify_run(run.layout, quiet).faults == ()


@pytest.mark.parametrize("fault", ["truncated", "emptied", "deleted"])
def test_a_truncated_or_deleted_object_is_made_good(damageable: Run, finished: Run, complete, fault: str):
    path = damageable.layout.root / SHARD_OBJECT
    content = path.read_bytes()
    if fault == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if fault == "truncated" else b"")
    faults = (Fault("synthesis-round-001-shard-00001", (SHARD_OBJECT,)),)
    assert verify_run(damageable.layout, quiet).faults == faults
    # What is there and not empty is not looked into before a run goes on.
    assert take_stock(damageable.layout).faults == (() if fault == "truncated" else faults)
    forget_damaged(damageable.layout)
    complete(damageable)
    assert_same_run(damageable, finished)


READ = {
    "dataset.zarr/soft_labels/c/1/0": ("synthesis-round-001-shard-00001", "synthesis-round-000-shard-00001"),
    SHARD_OBJECT: ("search", "synthesis-round-001-shard-00001"),
    "search/outcome.json": ("retrain", "search"),
    "model/weights.safetensors": ("evaluate", "retrain"),
}
"""A file, who reads it, and who makes it."""


@pytest.mark.parametrize("name", list(READ))
def test_damage_is_noticed_when_it_is_read_and_the_next_run_makes_it_anew(
    damageable: Run, finished: Run, complete, name: str
):
    """A resumed run looks into nothing that it does not read."""
    reader, maker = READ[name]
    flip(damageable.layout.root / name, 40)
    damageable.layout.manifest(reader).unlink()
    assert take_stock(damageable.layout).faults == ()
    with pytest.raises(StorageError, match=f"run again, which makes {maker} anew"):
        complete(damageable)
    complete(damageable)
    assert_same_run(damageable, finished)


def test_other_images_than_were_made_are_no_dataset(damageable: Run, complete):
    """An object with sound checksums of its own, in the place of another."""
    root = damageable.layout.dataset / "losses" / "c"
    shutil.copy(root / "0", root / "1")
    damageable.layout.manifest("dataset").unlink()
    with pytest.raises(StorageError, match=r"round 0 shard 1 holds other images than were made.*; run again"):
        complete(damageable)


def test_a_deleted_dataset_is_made_good(damageable: Run, finished: Run, complete):
    shutil.rmtree(damageable.layout.dataset)
    complete(damageable)
    assert_same_run(damageable, finished)


def test_a_full_disk_fails_the_write_and_leaves_nothing_half_made(
    damageable: Run, finished: Run, complete, monkeypatch: pytest.MonkeyPatch
):
    """The object's file takes half of its content, then the disk is full; once there is room, the run completes."""
    object_path = damageable.layout.root / SHARD_OBJECT
    object_path.unlink()
    real_open = Path.open

    def open_on_a_full_disk(path: Path, *arguments, **options):
        file = real_open(path, *arguments, **options)
        if path.suffix != ".partial":
            return file

        def write(content) -> int:
            type(file).write(file, bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

        Full.write = staticmethod(write)
        return Full()

    with monkeypatch.context() as full:
        full.setattr(Path, "open", open_on_a_full_disk)
        with pytest.raises(OSError, match="No space left on device"):
            complete(damageable)
    assert not list(damageable.layout.root.rglob("*.partial"))
    assert not object_path.exists()
    assert not damageable.layout.manifest("synthesis-round-001-shard-00001").exists()
    complete(damageable)
    assert_same_run(damageable, finished)


def test_an_empty_manifest_is_made_good(damageable: Run, finished: Run, complete):
    """As a power cut leaves it on a file system that does not order its writes."""
    damageable.layout.manifest("synthesis-round-001-shard-00001").write_bytes(b"")
    assert {fault.piece for fault in take_stock(damageable.layout).faults} == {"synthesis-round-001-shard-00001"}
    complete(damageable)
    assert_same_run(damageable, finished)


def test_a_run_whose_config_and_manifest_are_both_lost_goes_on_with_the_config_that_is_given(
    damageable: Run, finished: Run, complete
):
    """No file says what was run, but each piece's key does."""
    pieces = {path: path.stat().st_mtime_ns for path in damageable.layout.manifest("*").parent.iterdir()}
    damageable.layout.config.write_bytes(b"")
    damageable.layout.provenance.write_bytes(b"")
    complete(open_run(damageable.config, damageable.directory))
    assert_same_run(damageable, finished)
    assert {path: path.stat().st_mtime_ns for path in pieces} == pieces


def test_a_moved_run_is_done(damageable: Run, complete, tmp_path: Path):
    pieces = {path.name: path.stat().st_mtime_ns for path in damageable.layout.manifest("*").parent.iterdir()}
    elsewhere = shutil.move(damageable.directory, tmp_path / "another [name] #1")
    moved = open_run(damageable.config, str(elsewhere))
    assert verify_run(moved.layout, quiet).faults == ()
    complete(moved)
    assert {path.name: path.stat().st_mtime_ns for path in moved.layout.manifest("*").parent.iterdir()} == pieces


def test_a_disk_that_is_full_when_the_manifest_is_written_leaves_the_piece_undone(
    damageable: Run, finished: Run, complete, monkeypatch: pytest.MonkeyPatch
):
    piece = damageable.layout.manifest("synthesis-round-001-shard-00001")
    piece.unlink()
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith(f".{piece.name}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left on device"):
            complete(damageable)
    assert not piece.exists()
    assert not list(damageable.layout.root.rglob("*.partial"))
    complete(damageable)
    assert_same_run(damageable, finished)


def test_an_object_of_another_run_is_named_and_made_good(damageable: Run, finished: Run, complete):
    """It is sound in itself, so that only its SHA-256 in the manifest tells."""
    other = damageable.layout.dataset / "canvases" / "c" / "2" / "0" / "0" / "0"
    shutil.copy(other, damageable.layout.root / SHARD_OBJECT)
    faults = (Fault("synthesis-round-001-shard-00001", (SHARD_OBJECT,)),)
    assert verify_run(damageable.layout, quiet).faults == faults
    forget_damaged(damageable.layout)
    complete(damageable)
    assert_same_run(damageable, finished)


def test_dates_of_files_decide_nothing(damageable: Run, finished: Run, complete):
    """Every other file is of 1970, the others are of 2100, as a copy or a wrong clock leaves them."""
    missing = {"synthesis-round-001-shard-00001", "dataset", "search", "retrain", "evaluate"}
    for piece in missing:
        damageable.layout.manifest(piece).unlink()
    dates = {}
    for number, name in enumerate(files_of(damageable)):
        path = damageable.layout.root / name
        dates[path] = (0, 4_102_444_800)[number % 2]
        os.utime(path, (dates[path], dates[path]))
    complete(damageable)
    assert_same_run(damageable, finished)
    manifests = damageable.layout.manifests()
    assert {path.stem for path in manifests if path.stat().st_mtime != dates.get(path)} == missing


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_a_damaged_description_is_a_sentence(damageable: Run, name: str):
    """At any byte: what reads the directory says what is wrong, and the original config still opens it."""
    path = damageable.layout.root / name
    content = path.read_bytes()
    for position in range(0, len(content), 301 if name == "config.yaml" else 61):
        flip(path, position)
        with pytest.raises((InputError, StorageError), match=f"{name} is damaged"):
            load_run(damageable.layout.root)
        open_run(damageable.config, damageable.directory)
        assert path.read_bytes() == content


def test_a_damaged_config_does_not_vouch_for_itself(damageable: Run):
    """Repairing from the directory's own config.yaml must not take a flipped digit for the user's wish."""
    config = damageable.layout.config
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    changed = damageable.config.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match=r"config\.yaml is missing or damaged"):
        open_run(changed, damageable.directory)


def test_a_read_only_directory_is_named_before_anything_runs(damageable: Run, monkeypatch: pytest.MonkeyPatch):
    """Injected, as permissions do not bind every user."""
    real_open = Path.open

    def open_read_only(path: Path, mode: str = "r", *arguments, **options):
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real_open(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_read_only)
    with pytest.raises(InputError, match=r"cannot write to the run directory .*: Read-only file system"):
        open_run(damageable.config, damageable.directory)
    assert verify_run(damageable.layout, quiet).faults == ()


def test_a_disk_without_room_for_the_images_is_refused_with_both_numbers(
    damageable: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """32 images of 10x10 bytes; of a run that has them, none is to be made, and of half of them, half."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: mock.Mock(free=1000))
    with pytest.raises(InputError, match=r"images to be made take 3\.1 KiB, and the disk of .* has 1000 bytes free"):
        open_run(damageable.config, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    open_run(damageable.config, damageable.directory)
    for shard in range(2):
        damageable.layout.manifest(piece_name("synthesis", {"round": 1, "shard": shard})).unlink()
    with pytest.raises(InputError, match=r"images to be made take 1\.6 KiB"):
        open_run(damageable.config, damageable.directory)


def test_a_directory_in_use_is_refused_before_a_server_is_started(damageable: Run):
    with exclusive(damageable.layout.root), pytest.raises(InputError, match="another run is working in"):
        open_run(damageable.config, damageable.directory)


def test_a_directory_of_other_files_is_refused_and_left_alone(finished: Run, tmp_path: Path):
    """Clearing a run's leftovers in somebody's home would delete their downloads."""
    (tmp_path / "download.partial").touch()
    with pytest.raises(InputError, match=r"holds other files \(download.partial\) and no run"):
        open_run(finished.config, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["download.partial"]


@pytest.mark.parametrize("name", ["dataset.zarr/canvases/c", "dataset.zarr/zarr.json", "model", SHARD_OBJECT])
def test_a_link_to_outside_is_refused_before_anything_runs(damageable: Run, tmp_path: Path, name: str):
    path = damageable.layout.root / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    for opens in (lambda: open_run(damageable.config, damageable.directory), lambda: load_run(damageable.layout.root)):
        with pytest.raises(InputError, match="is a symbolic link to outside of"):
            opens()


def test_a_run_directory_may_be_a_link_itself(finished: Run, tmp_path: Path):
    (tmp_path / "link").symlink_to(finished.directory)
    assert open_run(finished.config, str(tmp_path / "link")).fingerprint == finished.fingerprint


def test_a_run_that_goes_on_with_other_versions_says_so(damageable: Run, caplog: pytest.LogCaptureFixture):
    """No refusal: who updates PyTorch in the middle of a run may want it to end, and should know."""
    open_run(damageable.config, damageable.directory)
    assert "goes on with" not in caplog.text
    known = Provenance.read(damageable.layout.provenance)
    began = known.model_copy(update={"versions": known.versions | {"torch": "1.13.0"}})
    began.write(damageable.layout.provenance)
    open_run(damageable.config, damageable.directory)
    assert caplog.text.count("goes on with") == 1
    assert f"began with torch 1.13.0 and goes on with {known.versions['torch']}" in caplog.text
    assert Provenance.read(damageable.layout.provenance).versions["torch"] == "1.13.0"


def test_weights_that_were_overwritten_are_noticed_by_whoever_loads_them(damageable: Run, tmp_path: Path):
    """A worker that starts later, on another machine, or a report of a finished run."""
    weights = shutil.copy(damageable.config.teacher.weights, tmp_path / "teacher.safetensors")
    teacher = damageable.config.teacher.model_copy(update={"weights": weights})
    run = damageable.model_copy(update={"config": damageable.config.model_copy(update={"teacher": teacher})})
    state = load_file(weights)
    save_file(state | {"linear.bias": state["linear.bias"] + 1}, weights)
    for reads in (run.teacher, lambda: rewrite_report(run)):
        with pytest.raises(InputError, match="weights are not those that the run began with"):
            reads()


def cached_result(run: Run, **changes: object) -> Path:
    """A file as Prefect writes it for the search's manifest, with changes to its record."""
    data = json.loads(run.layout.manifest("search").read_text())
    del data["checksum"]
    result = {"__class__": "storage.manifests.Manifest", "data": data}
    serializer = JSONSerializer().model_dump(mode="json")
    record = {"metadata": {"serializer": serializer, "storage_block_id": None}, "result": json.dumps(result)}
    run.layout.cache.mkdir()
    path = run.layout.cache / "search-0"
    path.write_text(json.dumps(record | changes))
    return path


def test_a_cached_result_that_mirrors_its_manifest_is_kept(damageable: Run):
    path = cached_result(damageable)
    assert drop_unfounded_results(damageable) == []
    assert path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"serializer": {"type": "pickle"}, "storage_block_id": None}},
        {"result": "{}"},
        {"result": 1},
    ],
)
def test_any_other_cached_result_is_removed_unread(damageable: Run, changes: dict):
    """Prefect would unpickle, and thereby run, what a stranger's run directory holds."""
    path = cached_result(damageable, **changes)
    assert drop_unfounded_results(damageable) == [path]
    assert not path.exists()


def test_a_flipped_byte_in_the_result_of_prefects_cache_is_noticed(damageable: Run):
    path = cached_result(damageable)
    flip(path, path.read_text().index("digest") + 15)
    assert drop_unfounded_results(damageable) == [path]
