"""What is shown in Prefect's UI while a run goes on."""

from threading import Event

import pytest

from tasks import artifacts


def test_a_run_that_was_asked_to_end_shows_nothing_more(monkeypatch: pytest.MonkeyPatch):
    """Its server may be gone, and calling it would keep the work from saving its state for minutes."""
    stop, shown = Event(), []
    monkeypatch.setattr(artifacts, "STOP", stop)
    monkeypatch.setattr(artifacts.TaskRunContext, "get", lambda: object())
    monkeypatch.setattr(artifacts, "SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(artifacts, "create_table_artifact", lambda *_, **__: shown.append("table"))
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda *_, **__: shown.append("made") or "id")
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda *_, **__: shown.append("updated") or "id")
    progress = artifacts.task_progress("search", "search")
    artifacts.show_table("rows", [{"a": 1}], "rows")
    progress(1, 9, {})
    progress(2, 9, {})
    assert shown == ["table", "made", "updated"]
    stop.set()
    artifacts.show_table("rows", [{"a": 1}], "rows")
    progress(3, 9, {})
    assert shown == ["table", "made", "updated"]
