"""The found network beside those that nobody searched for."""

import math
from collections.abc import Mapping
from typing import Any

from nas_core.reporting.wording import amount, percent

MEASURES = {"top1": "top-1 on real images", "agreement": "agreement with the teacher"}

# Short, for a table of many columns on a phone.
HEADINGS = {"top1": "top-1", "agreement": "agreement"}


def baseline_table(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Heading, the found network, then one row per baseline; empty if none was asked for.

    Args:
        results: See `nas_core.reporting.records.RunRecords`.
    """
    compared = results["baselines"]
    if compared is None:
        return []
    measures = [name for name in MEASURES if name == compared["measure"] or name == "agreement"]
    heading = ("", *(HEADINGS[name] for name in measures), "MACs", "parameters")
    networks = [{"title": "found by the search", **results["student"]}, *compared["networks"]]
    return [
        heading,
        *(
            (
                network["title"],
                *(percent(network[name]) for name in measures),
                amount(network["macs"]),
                amount(network["params"]),
            )
            for network in networks
        ),
    ]


def verdict(results: Mapping[str, Any]) -> str:
    """Whether the search was worth it, in one or two sentences; empty without baselines.

    A difference counts if it is larger than twice its standard error, sqrt(p (1 - p) / n) of each share added in
    quadrature: what so many images can tell apart, were the networks judged on different ones.
    """
    compared = results["baselines"]
    if compared is None:
        return ""
    measure, images = compared["measure"], compared["images"]
    best = max(compared["networks"], key=lambda network: network[measure])
    found, other = results["student"][measure], best[measure]
    margin = 2 * math.sqrt(sum(share * (1 - share) / images for share in (found, other)))
    difference = found - other
    title = f"the best baseline ({best['title']}, {amount(best['macs'])} multiply-accumulates)"
    points = f"{100 * abs(difference):.1f} points of {MEASURES[measure]}"
    uncertainty = f"{images:,} images tell apart {100 * margin:.1f} points"
    if abs(difference) <= margin:
        answer = f"Not shown: the found network and {title} are {points} apart, and {uncertainty}."
    elif difference > 0:
        answer = f"Yes: the found network is {points} ahead of {title}; {uncertainty}."
    else:
        answer = f"No: the found network is {points} behind {title}; {uncertainty}."
    return f"{answer} Each was trained once; another seed would move the figures."
