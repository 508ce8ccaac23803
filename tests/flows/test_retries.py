"""A failure that may pass by itself is tried again, as Prefect does it; bad input and bugs are not."""

import pytest
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, temporary_settings

from nas_core.errors import InputError
from tasks.stage import RETRIES
from tasks.stages import search_architecture


@pytest.mark.parametrize(("error", "attempts"), [(ConnectionResetError, 3), (ZeroDivisionError, 1), (InputError, 1)])
def test_a_hiccup_is_retried_twice_and_a_mistake_never(prefect_server, error: type[Exception], attempts: int):
    made: list[type[Exception]] = []

    @task(**RETRIES | {"retry_delay_seconds": 0})
    def failing() -> None:
        made.append(error)
        raise error("again")

    @flow
    def once() -> None:
        failing()

    with temporary_settings({PREFECT_API_URL: prefect_server.api}):
        state = once(return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), error)
    assert len(made) == attempts


def test_the_pauses_of_every_stage_grow():
    first, second = search_architecture.task.retry_delay_seconds
    assert 0 < first < second
