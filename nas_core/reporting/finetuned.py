"""What fine-tuning on real images gave, marked as what it is: not data-free."""

from collections.abc import Mapping
from typing import Any

from nas_core.reporting.wording import percent


def finetuned_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of (quantity, value) about the fine-tuned student; empty if there is none.

    Args:
        results: See `nas_core.reporting.records.RunRecords`.
    """
    tuned = results["finetuned"]
    if tuned is None:
        return []
    source = tuned["trained_on"]
    rows = [
        ("trained on", f"{source['images']:,} labelled real images ({source['source']}): not data-free"),
        ("top-1 on other real images", f"{percent(tuned['top1'])}, before {percent(results['student']['top1'])}"),
        (
            "agreement with the teacher",
            f"{percent(tuned['agreement'])}, before {percent(results['student']['agreement'])}",
        ),
    ]
    return [row for row in rows if not row[1].startswith("-")]
