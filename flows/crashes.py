"""Flow runs whose machine died become *Crashed*: `python -m flows.crashes`, once per Prefect server.

A run that is killed cannot say so. But while it runs, it sends a heartbeat every 30 seconds, and an automation of the
server marks a run as crashed when it has sent nothing for longer than `SILENCE`.
"""

import asyncio
from datetime import timedelta

from prefect.automations import Automation, ChangeFlowRunState, EventTrigger, Posture
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes

NAME = "dfnas: a run that has gone silent has crashed"
# Four heartbeats: a busy machine may be late with one.
SILENCE = timedelta(seconds=120)
HEARTBEAT = "prefect.flow-run.heartbeat"
LAST_WORDS = ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry", "Scheduled", "Paused", "Suspended")


def watch_for_crashes(silence: timedelta = SILENCE) -> Automation:
    """Create the automation on the server of PREFECT_API_URL; if it is there, set it anew.

    Args:
        silence: How long a run may send nothing; at least 10 seconds, and several heartbeats.
    """
    automation = Automation(
        name=NAME,
        description="Its machine or its process died: Retry on the page of the run goes on with what is missing.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in LAST_WORDS)},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[_mark_as_crashed(silence)],
    )
    asyncio.run(_put(automation))
    return automation


def _mark_as_crashed(silence: timedelta) -> ActionTypes:
    message = f"no heartbeat for {silence.total_seconds():.0f} s: its process or machine has died"
    return ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message, force=False)


async def _put(automation: Automation) -> None:
    try:
        automation.id = (await Automation.aread(name=automation.name)).id
    except ValueError:
        await automation.acreate()
    else:
        await automation.aupdate()


if __name__ == "__main__":
    watch_for_crashes()
