"""What holds for all tests."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from nas_core.device import resolve_device
from storage.locations import location

# A slow moment of a busy machine is no failure.
settings.register_profile("dfnas", deadline=None)
settings.load_profile("dfnas")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests/contracts and tests/nas_core/test_device.py compute")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return resolve_device(request.config.getoption("device"))


ENDPOINT_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a bucket that a server with S3's API holds on this machine; the environment names the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    with (tmp_path_factory.mktemp("s3") / "server.log").open("w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**ENDPOINT_VARIABLES, "AWS_ENDPOINT_URL": endpoint}.items():
                patch.setenv(name, value)
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
            _make_bucket(f"{endpoint}/tests")
            yield "s3://tests"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _make_bucket(url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10):
                return
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no server at {url}")


@pytest.fixture
def prefix(object_store: str) -> Path:
    """An empty prefix of it."""
    return location(f"{object_store}/{uuid.uuid4().hex}")
