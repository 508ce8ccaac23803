"""All rounds of all shards: placed side by side, and a failed shard fails alone."""

from collections.abc import Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import task_run
from prefect.task_runners import TaskRunner

from nas_core.errors import InputError
from nas_core.reporting.wording import command
from storage.manifests import Manifest
from tasks.artifacts import show_table
from tasks.execution import outcome_of, placing
from tasks.run import Run
from tasks.shard_table import ShardTable, WaitingError
from tasks.stage import RETRIES, piece_name
from tasks.stages import synthesize
from tasks.stopping import StoppedError

Outcomes = Mapping[str, Manifest | Exception]
"""What became of each shard-round, by the name of its piece."""

SHOWN_FAILURES = 10


class IncompleteError(RuntimeError):
    """Some shard-rounds are missing; the message says which, why, and how to complete them."""


class GroupError(ExceptionGroup):
    """Some shard-rounds of a group failed; `outcomes` says what became of each."""

    def __new__(cls, outcomes: Outcomes) -> "GroupError":
        """Of what became of each."""
        failed = failures(outcomes)
        why = "; ".join(f"{piece}: {_reason(error)}" for piece, error in failed.items())
        return super().__new__(cls, why, list(failed.values()))

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes

    def __reduce__(self) -> tuple[type, tuple[Outcomes]]:
        """For the way back from a worker process."""
        return type(self), (self.outcomes,)


def synthesize_shards(run: Run, first: Manifest) -> list[Manifest]:
    """Make every shard-round that is missing, where the run's `execution` says.

    Up to `most_tasks` of them each is a task; of more, all rounds of neighbouring shards are one.

    Args:
        run: The run.
        first: What round 0 starts from.

    Returns:
        The manifests of all, in the order round, shard.

    Raises:
        IncompleteError: If some failed, after all others are done; they are also listed in Prefect.
        InputError: The same, if settings are the reason of every failure.
    """
    config = run.config
    grouped = config.synthesis.rounds * config.synthesis.shards > config.execution.most_tasks
    table = ShardTable(run)
    with placing(config.execution, run.layout.log) as runner:
        outcomes = (_in_groups if grouped else _one_by_one)(run, first, runner, table)
    table.publish()
    pieces = [_piece(r, s) for r in range(config.synthesis.rounds) for s in range(config.synthesis.shards)]
    found = {piece: outcomes[piece] for piece in pieces}
    if failed := failures(found):
        _report(run, failed, len(found))
    return [outcome for outcome in found.values() if isinstance(outcome, Manifest)]


def failures(outcomes: Outcomes) -> dict[str, Exception]:
    """Those that failed."""
    return {piece: outcome for piece, outcome in outcomes.items() if isinstance(outcome, Exception)}


def _one_by_one(run: Run, first: Manifest, runner: TaskRunner, table: ShardTable) -> Outcomes:
    config = run.config.synthesis
    futures: dict[tuple[int, int], PrefectFuture[Manifest]] = {}
    for round_ in range(config.rounds):
        for shard in range(config.shards):
            previous = futures.get((round_ - 1, shard), first)
            futures[round_, shard] = synthesize.submit(run, previous, runner=runner, round=round_, shard=shard)
    outcomes: dict[str, Manifest | Exception] = {}
    for (round_, shard), future in futures.items():
        waiting = isinstance(outcomes.get(_piece(round_ - 1, shard)), Exception)
        outcome = WaitingError() if waiting else outcome_of(future)
        outcomes[_piece(round_, shard)] = outcome
        table.add((round_, shard), outcome)
    return outcomes


def _in_groups(run: Run, first: Manifest, runner: TaskRunner, table: ShardTable) -> Outcomes:
    outcomes: dict[str, Manifest | Exception] = {}
    groups = groups_of_shards(run.config.synthesis.shards, run.config.execution.most_tasks)
    # Groups that are done are no task again: resuming should cost what is missing, not what is there.
    missing = [group for group in groups if not _are_done(run, first, group, outcomes)]
    futures = [runner.submit(synthesize_group, {"run": run, "first": first, "shards": group}) for group in missing]
    made = dict(zip(missing, futures, strict=True))
    for group in groups:
        if group in made:
            outcomes |= _outcomes_of_group(run, group, made[group])
        for shard in group:
            for round_ in range(run.config.synthesis.rounds):
                table.add((round_, shard), outcomes[_piece(round_, shard)])
    return outcomes


def _outcomes_of_group(run: Run, group: range, future: PrefectFuture[Outcomes]) -> Outcomes:
    try:
        return future.result()
    except GroupError as error:
        return error.outcomes
    except Exception as error:  # noqa: BLE001 - as in `outcome_of`
        return {_piece(r, s): error for s in group for r in range(run.config.synthesis.rounds)}


def _are_done(run: Run, first: Manifest, shards: range, outcomes: dict[str, Manifest | Exception]) -> bool:
    """Whether the run directory has all rounds of some shards; adds those that it has to `outcomes`."""
    for shard in shards:
        previous = first
        for round_ in range(run.config.synthesis.rounds):
            found = synthesize.found(run, [previous], {"round": round_, "shard": shard})
            if found is None:
                return False
            outcomes[_piece(round_, shard)] = previous = found
    return True


def groups_of_shards(shards: int, most_tasks: int) -> list[range]:
    """Neighbouring shards, as few to a group as keep the number of groups at or under `most_tasks`.

    All rounds of a shard are in one group, as each needs the one before.
    """
    size = -(-shards // most_tasks)
    return [range(start, min(start + size, shards)) for start in range(0, shards, size)]


def _group_name() -> str:
    shards = task_run.get_parameters()["shards"]
    return f"synthesize shards {shards[0]} to {shards[-1]}"


@task(name="synthesis-group", task_run_name=_group_name, cache_policy=NO_CACHE, tags=["dfnas", "synthesis"], **RETRIES)
def synthesize_group(run: Run, first: Manifest, shards: range) -> Outcomes:
    """Make all rounds of some shards that are missing; a table shows each.

    Returns:
        The manifest of each shard-round.

    Raises:
        GroupError: If some failed, after the others are done; doing it again tries only those.
    """
    outcomes: dict[str, Manifest | Exception] = {}
    for shard in shards:
        previous: Manifest | Exception = first
        for round_ in range(run.config.synthesis.rounds):
            previous = _attempt(run, previous, round_, shard) if isinstance(previous, Manifest) else WaitingError()
            outcomes[_piece(round_, shard)] = previous
    show_table(
        run.artifact(f"shards-{shards[0]}-to-{shards[-1]}"),
        [_row(piece, outcome) for piece, outcome in outcomes.items()],
        f"Shard-rounds of shards {shards[0]} to {shards[-1]} of {run.config.name}.",
    )
    if failures(outcomes):
        raise GroupError(outcomes)
    return outcomes


def _attempt(run: Run, previous: Manifest, round_: int, shard: int) -> Manifest | Exception:
    try:
        return synthesize.perform(run, [previous], {"round": round_, "shard": shard})
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the other shards from being made
        return error


def _row(piece: str, outcome: Manifest | Exception) -> dict[str, object]:
    if isinstance(outcome, Manifest):
        return {"piece": piece, "seconds": round(outcome.seconds, 1), **outcome.figures}
    return {"piece": piece, "missing": _reason(outcome)}


def _report(run: Run, failed: dict[str, Exception], total: int) -> None:
    """Say which shard-rounds are missing, in Prefect and by raising."""
    repair = command("repair", run.directory)
    show_table(
        run.artifact("missing"),
        [{"missing": piece, "because": _reason(error)} for piece, error in failed.items()],
        f"{len(failed)} of {total} shard-rounds are missing, the others are done. {repair}, or "
        "Retry on the page of this flow run, makes exactly these.",
    )
    lines = [f"  {piece}: {_reason(error)}" for piece, error in failed.items()]
    if len(lines) > SHOWN_FAILURES:
        lines[SHOWN_FAILURES:] = [f"  and {len(lines) - SHOWN_FAILURES} more"]
    sentence = f"{len(failed)} of {total} shard-rounds are missing, the others are done:"
    text = "\n".join([sentence, *lines, f"{repair} makes exactly these."])
    causes = [error for error in failed.values() if not isinstance(error, WaitingError)]
    raise InputError(text) if all(isinstance(error, InputError) for error in causes) else IncompleteError(text)


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    known = isinstance(error, (InputError, StoppedError, WaitingError))
    return words if known else f"{type(error).__name__}: {words}"


def _piece(round_: int, shard: int) -> str:
    return piece_name(synthesize.name, {"round": round_, "shard": shard})
