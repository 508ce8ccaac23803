"""Images that were not made in the run, marked as what they are: nobody here knows where they come from."""

from collections.abc import Mapping
from typing import Any


def image_kind(results: Mapping[str, Any]) -> str:
    """What the images of a run are called: "imported" or "synthetic".

    Args:
        results: See `nas_core.reporting.records.RunRecords`; of an earlier version, without "imported".
    """
    return "synthetic" if results["synthesis"].get("imported") is None else "imported"


def imported_sentence(results: Mapping[str, Any]) -> str | None:
    """What is to be said of imported images; None if the run made its own.

    Args:
        results: See `nas_core.reporting.records.RunRecords`; of an earlier version, without "imported".
    """
    imported = results["synthesis"].get("imported")
    if imported is None:
        return None
    said = ""
    if imported["teacher"] is not None:
        same = "this teacher" if imported["teacher"] == results["teacher"]["fingerprint"] else "another teacher"
        said = f" Their dataset.json says that dfnas made them from {same}."
    return f"The images were imported from {imported['path']}: dfnas cannot know that they are data-free.{said}"
