"""Keys: equal for equal inputs, different for anything that the content depends on."""

import errno
import socket
from pathlib import Path

import pytest
from prefect.states import Failed

from flows.config_file import read_config
from nas_core.errors import InputError
from storage import locations
from storage.manifests import Manifest, read_manifest
from tasks.run import Run
from tasks.stage import Stage, is_transient, piece_name
from tasks.stages import (
    commit_dataset,
    evaluate_student,
    finetune_student,
    retrain_architecture,
    search_architecture,
    synthesize,
    write_report,
)

ALL = (
    synthesize, commit_dataset, search_architecture, retrain_architecture, finetune_student, evaluate_student,
    write_report,
)  # fmt: skip

PROJECT = Path(__file__).parents[2]


def run_with(*settings: str, fingerprint: str = "f") -> Run:
    config = read_config(PROJECT / "configs" / "digits.yaml", settings)
    return Run(directory="somewhere", config=config, fingerprint=fingerprint)


def manifest(digest: str) -> Manifest:
    return Manifest(piece="noise", key="k", digest=digest, files={}, figures={}, seconds=1.0)


def key(*settings: str, version: int = 1, fingerprint: str = "f", upstream: str = "u", shard: int = 0) -> str:
    stage = Stage("search", "nowhere:a_key_needs_no_work", version, ("search", "evaluation.held_out"))
    return stage.key(run_with(*settings, fingerprint=fingerprint), [manifest(upstream)], {"shard": shard})


def test_equal_inputs_have_equal_keys():
    assert key() == key()


@pytest.mark.parametrize(
    "other",
    [
        {"version": 2}, {"fingerprint": "g"}, {"upstream": "v"}, {"shard": 1},
    ],
)  # fmt: skip
def test_keys_depend_on_version_teacher_upstream_and_position(other):
    assert key(**other) != key()


@pytest.mark.parametrize("setting", ["seed=1", "search.strategy.epochs=7", "evaluation.held_out=0.2"])
def test_keys_depend_on_the_seed_and_on_the_sections_that_are_read(setting: str):
    assert key(setting) != key()


@pytest.mark.parametrize("setting", ["name=other", "retrain.epochs=7", "evaluation.data=null", "synthesis.shards=9"])
def test_keys_do_not_depend_on_what_is_not_read(setting: str):
    """The real images of `evaluation.data` above all: a search can neither see them nor be invalidated by them."""
    assert key(setting) == key()


def test_keys_depend_on_the_content_of_the_real_data_that_their_sections_name():
    """Repaired labels under the same name are other images to judge by, and no other search."""
    stages = {
        "evaluation.verifier": {"dataset", "evaluate", "report"},
        "evaluation.data": {"evaluate", "report"},
        "finetune.data": {"finetune", "report"},
        "evaluation.table": {"evaluate", "report"},
    }
    run = run_with("finetune={data: {name: npz, path: more.npz}}")
    known = run.model_copy(update={"sources": dict.fromkeys(stages, "before")})
    for name, readers in stages.items():
        other = run.model_copy(update={"sources": {**known.sources, name: "after"}})
        changed = {stage.name for stage in ALL if stage.key(other, [], {}) != stage.key(known, [], {})}
        assert changed == readers
    assert search_architecture.key(run, [], {}) == search_architecture.key(known, [], {})


def test_pieces_sort_in_the_order_of_their_position():
    names = [piece_name("synthesis", {"round": r, "shard": s}) for r in (0, 2, 10) for s in (0, 9, 11)]
    assert names == sorted(names)
    assert names[0] == "synthesis-round-000-shard-00000"


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (OSError(errno.EIO, "input/output error"), True),
        (OSError(errno.ENOSPC, "no space left"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (InputError("bad input"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_faults_that_may_pass_are_retried(error: Exception, transient: bool):
    assert is_transient(None, None, Failed(data=error)) is transient


def test_an_object_store_that_does_not_answer_may_answer_later(monkeypatch: pytest.MonkeyPatch):
    """A bound port where nobody listens; what the store's client says of it is no `OSError`."""
    pytest.importorskip("s3fs")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        # A client that others have used has another store's address.
        monkeypatch.setitem(locations.OPTIONS, "skip_instance_cache", True)
        path = locations.location("s3://bucket/run/config.yaml")
        with pytest.raises(Exception, match="Could not connect to the endpoint URL") as found:
            locations.read_bytes(path)
    assert not isinstance(found.value, OSError)
    assert is_transient(None, None, Failed(data=found.value)) is True


def test_a_manifest_of_which_a_byte_was_changed_counts_as_none(tmp_path: Path):
    path = tmp_path / "m.json"
    manifest("d").write(path)
    assert read_manifest(path) == manifest("d")
    path.write_text(path.read_text().replace('"seconds": 1.0', '"seconds": 2.0'))
    assert read_manifest(path) is None
    path.write_text("{")
    assert read_manifest(path) is None
