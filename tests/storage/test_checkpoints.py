"""Checkpoints: the state of the same work, or none with a warning; never code, never flipped bits."""

import io
import logging
from pathlib import Path

import pytest
import torch
from doubles import Bomb
from hypothesis import given
from hypothesis import strategies as st

from storage.checkpoints import load_checkpoint, save_checkpoint

STATE = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "history": [{"loss": 0.5}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "search.pt"
    save_checkpoint(path, "key", STATE)
    return path


def test_a_state_reads_back_as_saved(path: Path):
    state = load_checkpoint(path, "key")
    assert state is not None
    assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
    assert (state["epoch"], state["history"]) == (3, [{"loss": 0.5}])


def test_without_a_file_there_is_no_state_and_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert load_checkpoint(tmp_path / "none.pt", "key") is None
    assert not caplog.records


def old_version() -> bytes:
    buffer = io.BytesIO()
    torch.save({"key": "key", "state": STATE}, buffer)
    return buffer.getvalue()


UNUSABLE = {
    "of an older version": (old_version(), "written by another version, or is no checkpoint"),
    "empty": (b"", "written by another version, or is no checkpoint"),
    "garbage": (b"\x00garbage\n\n", "written by another version, or is no checkpoint"),
    "of its first line alone": (b"dfnas checkpoint 1", "damaged"),
}


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_what_is_no_checkpoint_is_ignored_with_a_warning(path: Path, kind: str, caplog: pytest.LogCaptureFixture):
    content, reason = UNUSABLE[kind]
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load_checkpoint(path, "key") is None
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert reason in record.getMessage()


def test_a_checkpoint_of_other_work_is_ignored_with_a_warning(path: Path, caplog: pytest.LogCaptureFixture):
    """Other config, other teacher, other version of the stage: all are in the key."""
    assert load_checkpoint(path, "other") is None
    assert "other inputs" in caplog.text


def test_a_truncated_checkpoint_is_ignored(path: Path):
    path.write_bytes(path.read_bytes()[:-100])
    assert load_checkpoint(path, "key") is None


@given(st.data())
def test_no_flipped_bit_is_taken_for_a_weight(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    path = tmp_path_factory.mktemp("flip") / "search.pt"
    save_checkpoint(path, "key", {"epoch": 3})
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert load_checkpoint(path, "key") is None


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    save_checkpoint(tmp_path / "x.pt", "key", {"a": Bomb(tmp_path / "ran")})
    assert load_checkpoint(tmp_path / "x.pt", "key") is None
    assert "holds more than tensors and plain values" in caplog.text
    assert not (tmp_path / "ran").exists()
