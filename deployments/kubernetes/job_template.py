"""Base job templates of the Kubernetes work pools: one template, and a table of sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

TEMPLATE = Path(__file__).with_name("job_template.yaml")


@dataclass(frozen=True)
class Size:
    """How much a flow run gets; each field is the default of the variable of its name.

    ``memory`` holds three processes of Python (Prefect's supervisor, its resolver of workspaces,
    and the run), the budget for rows, and what each partition holds beside it: docs/kubernetes.md
    has the arithmetic, and a test computes it.
    """

    cpu_request: str
    memory: str
    memory_budget: str
    concurrency: str
    scratch_size: str
    active_deadline_seconds: int


SIZES = {
    "small": Size("500m", "1536Mi", "256MB", "1", "10Gi", 2 * 3600),
    "medium": Size("2", "4Gi", "1536MB", "2", "40Gi", 6 * 3600),
    "large": Size("4", "12Gi", "6GB", "4", "120Gi", 24 * 3600),
}
"""Name of a size → what it gets."""


def job_template(size: str) -> dict[str, Any]:
    """Return the base job template of a work pool.

    Args:
        size: ``small``, ``medium`` or ``large``.

    Returns:
        A new dictionary with the keys ``variables`` and ``job_configuration``.

    Raises:
        KeyError: There is no such size.
    """
    if size not in SIZES:
        raise KeyError(f"no size {size!r}; there are: {', '.join(SIZES)}")
    template: dict[str, Any] = YAML(typ="safe", pure=True).load(TEMPLATE.read_text())
    properties = template["variables"]["properties"]
    for variable, default in asdict(SIZES[size]).items():
        properties[variable]["default"] = default
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]
    pod["metadata"]["labels"]["dpp/size"] = size
    return template
