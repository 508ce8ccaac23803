"""`dfnas doctor` finds what is missing and says how to mend it."""

import importlib.metadata
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from tasks.doctor import Finding, Verdict, examine


def finding(findings: list[Finding], subject: str) -> Finding:
    return next(found for found in findings if found.subject == subject)


@pytest.fixture(autouse=True)
def no_server(tmp_path: Path):
    with temporary_settings(set_defaults={PREFECT_HOME: tmp_path}, restore_defaults=[PREFECT_API_URL]):
        yield


def test_this_installation_is_sound(tmp_path: Path):
    findings = examine(tmp_path / "runs")
    assert all(found.verdict is not Verdict.MISSING for found in findings)
    assert {"Python", "torch", "prefect", "device cpu", "C compiler", "Prefect server", "free disk"} <= {
        found.subject for found in findings
    }
    assert not (tmp_path / "runs").exists()


def test_a_missing_and_an_old_package_are_named_with_the_command_that_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    version = importlib.metadata.version

    def installed(name: str) -> str:
        if name == "zarr":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.0.0" if name == "pydantic" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    findings = examine(tmp_path)
    assert finding(findings, "zarr").verdict is Verdict.MISSING
    assert "pip install 'zarr" in finding(findings, "zarr").mend
    assert "2.0.0, but >=2" in finding(findings, "pydantic").found


def test_a_server_that_does_not_answer_is_found(tmp_path: Path):
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        server = finding(examine(tmp_path), "Prefect server")
    assert server.verdict is Verdict.MISSING
    assert "http://127.0.0.1:9/api does not answer" in server.found
    assert "prefect server start" in server.mend


def test_a_place_that_cannot_be_written_is_found(tmp_path: Path):
    (tmp_path / "file").touch()
    place = finding(examine(tmp_path / "file" / "runs"), "run directories")
    assert place.verdict is Verdict.MISSING
    assert "cannot be written" in place.found


def test_little_disk_and_no_compiler_are_worth_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("tasks.doctor.LEAST_DISK", 2**80)
    findings = examine(tmp_path)
    assert finding(findings, "C compiler").verdict is Verdict.LOOK
    assert finding(findings, "free disk").verdict is Verdict.LOOK
