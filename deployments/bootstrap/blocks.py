"""Block types of the project, and the blocks of an environment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, cast
from uuid import UUID

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from blocks.content import content
from deployments.bootstrap.inventory import Inventory
from deployments.bootstrap.plan import Content, Present
from deployments.bootstrap.values import Values
from deployments.declared_blocks import block_classes, in_order, reference_of
from tasks.model.errors import ConfigError

Fields = Mapping[str, Mapping[str, Any]]


class BlockTypes:
    """The types of our own blocks, and of those that the environment declares."""

    label: ClassVar[str] = "block type"

    def __init__(self, client: SyncPrefectClient, declared: Collection[str]) -> None:
        self._client = client
        ours = {slug: cls for slug, cls in block_classes().items() if slug.startswith("etl-")}
        used = {key.partition("/")[0] for key in declared}
        self._classes: dict[str, type[Block]] = {
            **ours,
            **{slug: cls for slug, cls in block_classes().items() if slug in used},
            Inventory.get_block_type_slug(): Inventory,
        }

    def declared(self) -> dict[str, Content]:
        """Return the checksum of each type's schema, and what people read about it."""
        return {
            slug: {"schema": cls._calculate_schema_checksum(), **_description(slug, cls)}
            for slug, cls in self._classes.items()
        }

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the types that the server knows; the schema only if it is today's."""
        found = {}
        for slug in names:
            try:
                block_type = self._client.read_block_type_by_slug(slug)
            except ObjectNotFound:
                continue
            content = {"description": block_type.description, "schema": self._schema(slug)}
            found[slug] = Present(str(block_type.id), content)
        return found

    def _schema(self, slug: str) -> str | None:
        cls = self._classes[slug]
        try:
            schema = self._client.read_block_schema_by_checksum(cls._calculate_schema_checksum())
        except ObjectNotFound:
            return None
        return str(schema.checksum)

    def create(self, name: str) -> str:
        """Register a type, with the types that it is made of."""
        cls = self._classes[name]
        cls.register_type_and_schema()
        return str(cls._block_type_id)

    def change(self, name: str, _present: Present, _keys: Collection[str]) -> None:
        """Register the type anew; documents of older schemas stay as they are."""
        self.create(name)

    def remove(self, name: str, present: Present) -> None:
        """Types are never removed: blocks of other people may be of them."""
        raise NotImplementedError


class Blocks:
    """The blocks of an environment.

    Args:
        client: The server.
        declared: Their fields, by ``<slug>/<name>``.
        values: Gives what is not written down.
        given: Blocks that are made already: those of the dev environment's servers.
    """

    label: ClassVar[str] = "block"

    def __init__(
        self,
        client: SyncPrefectClient,
        declared: Fields,
        values: Values,
        given: Mapping[str, Block],
    ) -> None:
        self._client = client
        self._fields = declared
        self._values = values
        self._classes = block_classes()
        self._made: dict[str, Block] = dict(given)
        values.require(declared)
        for key in in_order(declared):
            self._made[key] = self._build(key)

    def _build(self, key: str) -> Block:
        slug = key.partition("/")[0]
        fields = self._nested(self._values.fill(self._fields[key]))
        try:
            return self._classes[slug](**fields)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            )
            raise ConfigError(f"block {key}: {wrong}") from None

    def _nested(self, node: Any) -> Any:
        """Put the blocks in place that a block names."""
        reference = reference_of(node)
        if reference is not None:
            block = self._made[reference.name]
            block._block_document_name = reference.name.partition("/")[2]
            return block
        if isinstance(node, Mapping):
            return {name: self._nested(value) for name, value in node.items()}
        if isinstance(node, list):
            return [self._nested(value) for value in node]
        return node

    def declared(self) -> dict[str, Content]:
        """Return the fields of each block, secrets included: they are compared, never shown."""
        return {key: content(block) for key, block in self._made.items()}

    def present(self, names: Collection[str]) -> dict[str, Present]:
        """Return the blocks that the server has."""
        found = {}
        for key in names:
            document = self._document(key)
            if document is not None:
                found[key] = Present(str(document.id), self._content(key))
        return found

    def _document(self, key: str) -> BlockDocument | None:
        slug, _, name = key.partition("/")
        try:
            return self._client.read_block_document_by_name(name, slug, include_secrets=False)
        except ObjectNotFound:
            return None

    def _content(self, key: str) -> Content:
        slug, _, name = key.partition("/")
        if key not in self._made:
            return {}
        try:
            return content(cast(Block, self._classes[slug].load(name)))
        except (ValueError, RuntimeError):  # of an older schema; it is written anew as a whole
            return {}

    def create(self, name: str) -> str:
        """Save a block; those that it names are there already, and are named by their ids."""
        block = self._made[name]
        for nested in _nested_blocks(block):
            if nested._block_document_name and nested._block_document_id is None:
                other = f"{nested.get_block_type_slug()}/{nested._block_document_name}"
                document = self._document(other)
                assert document is not None, other
                nested._block_document_id = document.id
        block.save(name.partition("/")[2], overwrite=True)
        return str(block._block_document_id)

    def change(self, name: str, _present: Present, _keys: Collection[str]) -> None:
        """Save the block over the one that is there; it keeps its id."""
        self.create(name)

    def remove(self, _name: str, present: Present) -> None:
        """Delete a block."""
        self._client.delete_block_document(UUID(present.id))


def _description(slug: str, cls: type[Block]) -> dict[str, str | None]:
    """Return what people read about a type of ours; Prefect keeps that of its own types."""
    return {"description": cls.get_description()} if slug.startswith("etl-") else {}


def _nested_blocks(block: Block) -> list[Block]:
    return [
        value
        for name in type(block).model_fields
        if isinstance(value := getattr(block, name), Block)
    ]
