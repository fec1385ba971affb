"""What was unusual in a run, as artifacts in the Prefect UI: the reasons in words, and pictures."""

from __future__ import annotations

from prefect.artifacts import create_image_artifact, create_table_artifact

from tasks.model.report import RunReport
from tasks.quality.plot import finding_svg, svg_address

MAX_FINDINGS = 50
MAX_PICTURES = 10


def publish_findings(report: RunReport, key: str) -> None:
    """Write what learned checks found; nothing if they found nothing.

    Args:
        report: The run.
        key: What the artifacts' keys end with.
    """
    found = [
        (entry.dataset, finding)
        for entry in report.datasets
        for finding in dict.fromkeys(entry.findings)
        if finding.severity != "note"
    ]
    if not found:
        return
    create_table_artifact(
        key=f"unusual-{key}",
        table=[
            {
                "dataset": dataset,
                "severity": finding.severity,
                "metric": finding.metric,
                "column": finding.column,
                "why": finding.message,
            }
            for dataset, finding in found[:MAX_FINDINGS]
        ],
        description="What is unlike the partitions before. `fail`: it was not published.",
    )
    drawn = [(dataset, finding) for dataset, finding in found if finding.history]
    for number, (dataset, finding) in enumerate(drawn[:MAX_PICTURES], start=1):
        create_image_artifact(
            key=f"unusual-{key}-{number}",
            image_url=svg_address(finding_svg(finding)),
            description=f"{dataset}: {finding.message}",
        )
