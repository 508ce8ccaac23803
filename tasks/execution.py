"""Where tasks run: independent pieces of work where a config's `execution` places them, all else beside the flow.

With `execution: local` all is done in the flow's own process. With any other, that process only conducts: what is not
placed elsewhere is done in a process of its own, so that the flow's holds no PyTorch, however large the run.
"""

import importlib.util
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from nas_core.errors import InputError
from nas_core.execution import Dask, Execution, Local, Processes, Ray
from tasks.logs import log_to
from tasks.stopping import STOP, holding_signals_back, obey_parent, saving_on_termination, working


def check_execution(execution: Execution, device: str) -> None:
    """Refuse an engine that is not installed, and devices that are not there or not the run's.

    Args:
        execution: Where independent pieces of work run.
        device: The config's.

    Raises:
        InputError: Naming what is missing or contradicts itself.
    """
    if isinstance(execution, (Dask, Ray)) and importlib.util.find_spec(f"prefect_{execution.name}") is None:
        raise InputError(f"execution: {execution.name} is not installed: pip install 'dfnas[{execution.name}]'")
    if isinstance(execution, Processes) and execution.devices:
        if device not in ("auto", "cuda"):
            raise InputError(
                f"execution.devices gives each process a CUDA device, and device = {device} another one: leave either "
                "out"
            )
        import torch

        there = torch.cuda.device_count()
        if absent := [d for d in execution.devices if not 0 <= d < there]:
            raise InputError(f"execution.devices: there is no CUDA device {absent[0]} here; there are {there}")


class _Beside:
    """Processes beside the flow's, each started when it is first needed: one, or where shards run in such too, theirs.

    Args:
        execution: Where independent pieces of work run.
        log: File for the log of these processes.
    """

    def __init__(self, execution: Execution, log: Path) -> None:
        # With devices, each process sees but one; what runs by itself should see all.
        suitable = execution if isinstance(execution, Processes) and not execution.devices else None
        self.for_shards = suitable is not None
        self._processes = suitable or Processes(workers=1)
        self._log, self._held = log, ExitStack()
        self._runner: TaskRunner[Any] | None = None

    def runner(self) -> TaskRunner[Any]:
        """The task runner that places tasks in these processes."""
        if self._runner is None:
            self._runner = _processes(self._processes, self._log, self._held)
        return self._runner

    def rest(self) -> None:
        """End the processes, which are started again when they are needed; what they have begun is waited for."""
        self._runner = None
        self._held.close()


_BESIDE: ContextVar[_Beside | None] = ContextVar("_BESIDE", default=None)


@contextmanager
def conducting(execution: Execution, log: Path) -> Iterator[None]:
    """Within, `submit` places tasks in the flow's process or, unless `execution` is local, in one beside it.

    However this is left, what has not begun is dropped, and what has begun is waited for: afterwards nothing works in
    the run directory any more.

    Args:
        execution: Where independent pieces of work run.
        log: File for the log of that process.
    """
    STOP.clear()  # An earlier run in this process may have been stopped.
    beside = None if isinstance(execution, Local) else _Beside(execution, log)
    token = _BESIDE.set(beside)
    try:
        with saving_on_termination():
            yield
    finally:
        _BESIDE.reset(token)
        with holding_signals_back():
            if beside is not None:
                beside.rest()
            flow = FlowRunContext.get()
            if flow is not None and isinstance(flow.task_runner, ThreadPoolTaskRunner):
                flow.task_runner.cancel_all()


def submit(
    task: Task[..., Any],
    parameters: dict[str, Any],
    runner: TaskRunner[Any] | None = None,
    done: Callable[..., bool] = lambda **_: False,
) -> PrefectFuture:
    """Schedule a task.

    Args:
        task: The task.
        parameters: Its parameters, which may hold futures of other tasks.
        runner: Where; None: see `conducting`.
        done: Given the parameters without futures, whether only its result has to be looked up: no process is started
            for that.
    """
    if runner is not None:
        return runner.submit(task, parameters)
    beside = _BESIDE.get()
    if beside is None:
        return task.submit(**parameters)
    # Waited for here, so that the failure of a task ends the flow in its own words.
    known = {name: _resolved(value) for name, value in parameters.items()}
    return task.submit(**known) if done(**known) else beside.runner().submit(task, known)


def outcome_of(future: PrefectFuture) -> Any:
    """What a task returned, or the exception that it failed with."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the others from being waited for
        return error


def _resolved(value: Any) -> Any:
    if isinstance(value, PrefectFuture):
        return value.result()
    return [_resolved(part) for part in value] if isinstance(value, list) else value


@contextmanager
def placing(execution: Execution, log: Path) -> Iterator[TaskRunner[Any]]:
    """The task runner that a config's `execution` names, started; call it in a flow.

    On leaving, what it has not begun is dropped, and what it is doing is waited for. Processes beside the flow take
    part if they can; if not, they end meanwhile, for the sake of the memory that they hold.

    Args:
        execution: Which, and with what.
        log: File for the log of its processes.
    """
    with ExitStack() as stack:
        beside = _BESIDE.get()
        if beside is not None and beside.for_shards:
            stack.callback(beside.rest)
            runner = beside.runner()
        else:
            if beside is not None:
                beside.rest()
            runner = _runner(execution, log, stack)
        stack.enter_context(saving_on_termination())
        yield runner


def _share_server(stack: ExitStack) -> None:
    """Let workers talk to the server that Prefect has started for this process, if any, and start none of their own."""
    if PREFECT_API_URL.value() is not None:
        return
    # A server's packages are no small import, and of no use to a flow whose server is elsewhere.
    from prefect.server.api.server import SubprocessASGIServer

    if (server := SubprocessASGIServer()).running:
        stack.enter_context(temporary_settings({PREFECT_API_URL: server.api_url}))


def _processes(execution: Processes, log: Path, stack: ExitStack) -> TaskRunner[Any]:
    _share_server(stack)
    log.parent.mkdir(parents=True, exist_ok=True)
    devices = multiprocessing.get_context("spawn").SimpleQueue()
    for worker in range(execution.workers if execution.devices else 0):
        devices.put(visible_device(execution.devices[worker % len(execution.devices)]))
    preparation = (log, devices if execution.devices else None)
    return stack.enter_context(
        ProcessPoolTaskRunner(execution.workers, initializer=prepare_worker, initargs=preparation)
    )


def visible_device(number: int) -> str:
    """What CUDA_VISIBLE_DEVICES calls a device, by its number among those that this process sees."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",")[number].strip() if seen else str(number)


def _runner(execution: Execution, log: Path, stack: ExitStack) -> TaskRunner[Any]:
    if isinstance(execution, Processes):
        return _processes(execution, log, stack)
    _share_server(stack)
    if not isinstance(execution, Local):
        stack.enter_context(working())  # Elsewhere, for all that is known here, until the runner has ended.
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


def prepare_worker(log: Path, devices: "SimpleQueue[str] | None") -> None:
    """Make a new process a worker: with a log, a device, and an end when its flow ends.

    Args:
        log: File that Prefect's log goes to.
        devices: CUDA devices, as CUDA_VISIBLE_DEVICES calls them, of which it takes one; None: it sees all.
    """
    log_to(log, verbose=False)
    obey_parent()
    if devices is not None:
        import torch

        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()
        torch.cuda.init()  # From here on that choice is fixed for this process, whatever the environment says.
