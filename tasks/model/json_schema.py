"""The JSON schema of dataset files, for editors; ``python -m tasks.model.json_schema`` prints it."""

from __future__ import annotations

import json
import sys

from tasks.model.dataset import DatasetSpec


def dataset_schema() -> str:
    """Return the schema as it is kept in ``docs/dataset.schema.json``."""
    schema = DatasetSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(dataset_schema())
