"""The result as a small table for the terminal."""

from collections.abc import Mapping
from typing import Any

from nas_core.reporting.wording import amount, duration, percent


def comparison(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Teacher beside student: rows of (quantity, teacher, student); a dash where there is nothing to say.

    Args:
        results: See `nas_core.reporting.records.RunRecords`; "macs" and "params" of the teacher are optional.
    """
    teacher, student = results["teacher"], results["student"]
    return [
        ("top-1 on real images", percent(teacher["top1"]), percent(student["top1"])),
        ("agreement with the teacher", "-", percent(student["agreement"])),
        ("multiply-accumulates", amount(teacher.get("macs")), amount(student["macs"])),
        ("parameters", amount(teacher.get("params")), amount(student["params"])),
    ]


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """The comparison as aligned lines, then the architecture and the time it took."""
    rows = [("", "teacher", "student"), *comparison(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        f"{quantity:<{widths[0]}}  {teacher:>{widths[1]}}  {student:>{widths[2]}}"
        for quantity, teacher, student in rows
    ]
    time = duration(results["timings"]["total"])
    return [*table, f"architecture: {results['search']['architecture']}", f"wall time: {time}"]
