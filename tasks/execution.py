"""Prefect's task runners for independent pieces of work: where a config's `execution` places them."""

import importlib.util
import logging
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from nas_core.errors import InputError
from nas_core.execution import Dask, Execution, Processes, Ray
from tasks.logs import log_to
from tasks.stopping import obey_parent, saving_on_termination


def check_execution(execution: Execution) -> None:
    """Refuse an engine that is not installed, and devices that are not there.

    Raises:
        InputError: Naming what is missing.
    """
    if isinstance(execution, (Dask, Ray)) and importlib.util.find_spec(f"prefect_{execution.name}") is None:
        raise InputError(f"execution: {execution.name} is not installed: pip install 'dfnas[{execution.name}]'")
    there = torch.cuda.device_count()
    if isinstance(execution, Processes) and (absent := [d for d in execution.devices if not 0 <= d < there]):
        raise InputError(f"execution.devices: there is no CUDA device {absent[0]} here; there are {there}")


@contextmanager
def placing(execution: Execution, log: Path) -> Iterator[TaskRunner[Any]]:
    """The task runner that a config's `execution` names, started; call it in a flow.

    On leaving, what it has not begun is dropped, and what it is doing is waited for.

    Args:
        execution: Which, and with what.
        log: File for the log of its processes.
    """
    with ExitStack() as stack:
        if PREFECT_API_URL.value() is None:
            # Workers talk to the server of this process, and start none of their own.
            stack.enter_context(temporary_settings({PREFECT_API_URL: _embedded_server()}))
        runner = _runner(execution, log, stack)
        stack.enter_context(saving_on_termination())
        yield runner


def _embedded_server() -> str | None:
    """Address of the server that Prefect has started for this process; None if it has started none."""
    # A server's packages are no small import, and of no use to a flow whose server is elsewhere.
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    return server.api_url if server.running else None


def _runner(execution: Execution, log: Path, stack: ExitStack) -> TaskRunner[Any]:
    if isinstance(execution, Processes):
        devices = multiprocessing.get_context("spawn").SimpleQueue()
        for worker in range(execution.workers if execution.devices else 0):
            devices.put(execution.devices[worker % len(execution.devices)])
        preparation = (log, devices if execution.devices else None)
        return stack.enter_context(
            ProcessPoolTaskRunner(execution.workers, initializer=prepare_worker, initargs=preparation)
        )
    if isinstance(execution, Dask):
        from prefect_dask.task_runners import DaskTaskRunner

        if execution.address is not None:
            return stack.enter_context(DaskTaskRunner(address=execution.address))
        cluster = {"n_workers": execution.workers, "threads_per_worker": 1, "memory_limit": None}
        local = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": logging.ERROR}
        return stack.enter_context(DaskTaskRunner(cluster_kwargs=cluster | local))
    if isinstance(execution, Ray):
        from prefect_ray import RayTaskRunner  # pyright: ignore[reportMissingImports]
        from prefect_ray.context import remote_options  # pyright: ignore[reportMissingImports]

        own = {"num_cpus": execution.workers, "include_dashboard": False} if execution.address is None else {}
        runner = stack.enter_context(RayTaskRunner(address=execution.address, init_kwargs=own))
        stack.enter_context(remote_options(num_cpus=1, num_gpus=execution.gpus))
        return runner
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError("shards are placed by a flow")
    return context.task_runner


def prepare_worker(log: Path, devices: "SimpleQueue[int] | None") -> None:
    """Make a new process a worker: with a log, a device, and an end when its flow ends.

    Args:
        log: File that Prefect's log goes to.
        devices: Numbers of CUDA devices, of which it takes one; None: it sees all.
    """
    log_to(log, verbose=False)
    obey_parent()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(devices.get())
        torch.cuda.init()  # From here on that choice is fixed for this process, whatever the environment says.
