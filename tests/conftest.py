"""What holds for all tests."""

import pytest
import torch
from hypothesis import settings

from nas_core.device import resolve_device

# A slow moment of a busy machine is no failure.
settings.register_profile("dfnas", deadline=None)
settings.load_profile("dfnas")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests/contracts and tests/nas_core/test_device.py compute")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return resolve_device(request.config.getoption("device"))
