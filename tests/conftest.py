"""What holds for all tests."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from object_stores import STORES

from nas_core.device import resolve_device
from storage.locations import location

# A slow moment of a busy machine is no failure.
settings.register_profile("dfnas", deadline=None)
settings.load_profile("dfnas")


# Tests in these folders share what takes long to make: a Prefect server, finished runs.
TOGETHER = ("flows", "tasks")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the mark in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes, each of these folders stays in one."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests/contracts and tests/nas_core/test_device.py compute")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return resolve_device(request.config.getoption("device"))


@pytest.fixture(
    scope="session", params=["s3", *(pytest.param(name, marks=pytest.mark.slow) for name in STORES if name != "s3")]
)
def object_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a bucket that a server on this machine holds; the environment names the server."""
    with STORES[request.param](tmp_path_factory.mktemp(request.param)) as url:
        yield url


@pytest.fixture
def prefix(object_store: str) -> Path:
    """An empty prefix of it."""
    return location(f"{object_store}/{uuid.uuid4().hex}")
