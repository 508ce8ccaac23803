"""Atomic files, digests and the lock."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import StorageError
from storage.files import digest_of, digest_of_json, exclusive, read_json, remove_leftovers, write_bytes, write_json
from storage.locations import location


def test_json_reads_back_as_written(tmp_path: Path):
    write_json(tmp_path / "deep" / "value.json", {"b": [1, 2.5, None], "a": "ä"})
    assert read_json(tmp_path / "deep" / "value.json") == {"b": [1, 2.5, None], "a": "ä"}


def test_failed_write_leaves_the_old_content_and_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full_disk(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_json_is_named(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(StorageError, match=r"x\.json is damaged"):
        read_json(path)
    with pytest.raises(StorageError, match="does not exist"):
        read_json(tmp_path / "none.json")


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
def test_digests_are_equal_only_for_equal_parts(one: list[bytes], other: list[bytes]):
    """Lengths are part of the digest, so that moving a byte from one part to the next changes it."""
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


def test_json_digest_ignores_the_order_of_keys():
    assert digest_of_json({"a": 1, "b": 2}) == digest_of_json({"b": 2, "a": 1})


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path):
    write_bytes(tmp_path / "kept", b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".kept.123.partial").write_bytes(b"half")
    assert remove_leftovers(tmp_path) == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept"]


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path):
    hold = "import sys, time; from pathlib import Path; from storage.files import exclusive\n"
    hold += "with exclusive(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="another run is working in"), exclusive(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with exclusive(tmp_path):
        pass


def test_a_tilde_is_the_home_directory_and_no_folder_of_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert location("~/runs/one") == tmp_path / "runs" / "one"
    assert location("runs/~") == Path("runs/~")
    with pytest.raises(StorageError, match="home directory of no known user"):
        location("~nobody-of-this-name/runs")
