"""What a block holds, in a form that can be compared with what the Prefect server has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.blocks.core import Block
from pydantic import BaseModel, SecretBytes, SecretStr


def content(block: Block) -> dict[str, Any]:
    """Return the fields of a block, secrets included: for comparisons, never to be shown."""
    names = [name for name in type(block).model_fields if name != "block_type_slug"]
    return {name: _revealed(getattr(block, name)) for name in names}


def save_if_changed(block: Block, name: str) -> bool:
    """Save a block unless the server has it already; tell whether it was saved.

    Prefect makes the schema of a block anew for each of its fields when it saves one, which takes
    seconds; to load one and compare takes hundredths.
    """
    try:
        present = type(block).load(name)
    except (ValueError, RuntimeError):  # there is none, or one of an older schema
        present = None
    if isinstance(present, Block) and content(present) == content(block):
        return False
    block.save(name, overwrite=True)
    return True


def _revealed(value: Any) -> Any:
    """Return a value that can be compared; a block that has a name is that name."""
    if isinstance(value, Block):
        name = value._block_document_name
        return f"{value.get_block_type_slug()}/{name}" if name else content(value)
    if isinstance(value, SecretStr | SecretBytes):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _revealed(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(name): _revealed(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(each) for each in value]
    reveal = getattr(value, "get_secret_value", None)
    return _revealed(reveal()) if callable(reveal) else value
