"""Personal values outside their table: masked or tokenised for the eye, sealed for a replay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.model.child_dataset import parents_columns
from tasks.model.dataset import DatasetSpec
from tasks.model.errors import ConfigError
from tasks.model.json_path import ITEM

if TYPE_CHECKING:
    from blocks.privacy import Privacy

MASK = "***"
"""What is shown in place of a value that is masked."""


def pii_columns(spec: DatasetSpec) -> dict[str, str]:
    """Return name → ``mask`` or ``token``, of each protected column by both of its names."""
    protected: dict[str, str] = {}
    for name, column in spec.columns.items():
        for known in (name, column.source_column(name)):
            # Of several values inside of one field the strictest protection is the field's.
            if column.pii == "mask" or (column.pii == "token" and known not in protected):
                protected[known] = column.pii
    for name, child in spec.children.items():
        if any(column.pii != "none" for column in child.columns.values()):
            protected[child.list_path(name).column] = "mask"
    own = {name: one for name, one in spec.columns.items() if name not in parents_columns(spec)}
    if len(own) < len(spec.columns) and any(column.pii != "none" for column in own.values()):
        protected[ITEM] = "mask"  # the item as it is, of a child table
    return protected


def parse_values(raw: str | None) -> dict[str, Any] | None:
    """Return the values of a row that was kept as JSON, None for a text that is no row.

    Numbers stay the texts that they were: no digit is lost.
    """
    try:
        values = json.loads(raw or "", parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):  # of ten thousand levels, say
        return None
    return values if isinstance(values, dict) else None


class Protection:
    """Protects the original values of a dataset's refused rows.

    Args:
        columns: What ``pii_columns`` says.
        privacy: The keys; None only where no column is protected.
    """

    def __init__(self, columns: Mapping[str, str], privacy: Privacy | None) -> None:
        if columns and privacy is None:
            raise ConfigError(
                f"columns {', '.join(sorted(columns))} are marked pii, and there is no key to "
                "protect them with",
                "name a block of type etl-privacy-keys as privacy_block in deployments/environments, "
                "or export DPP_PRIVACY_KEY=$(openssl rand -hex 32) and keep that key",
            )
        self._columns = columns
        self._privacy = privacy

    def of_dataset(self, spec: DatasetSpec) -> Protection:
        """Return what protects the columns of another dataset with the same keys."""
        return Protection(pii_columns(spec), self._privacy)

    def protect(self, raw: str | None, *, is_row: bool) -> tuple[str | None, str | None]:
        """Return what may be shown of a row, and what is hidden of it, sealed.

        Args:
            raw: The row as it was read.
            is_row: Is it a JSON object of columns? A text that is no row is hidden whole.
        """
        if raw is None or not self._columns or self._privacy is None:
            return raw, None
        values = parse_values(raw) if is_row else None
        if values is None:
            return MASK, self._privacy.seal(json.dumps(raw))
        hidden = {name: values[name] for name in self._columns if values.get(name) is not None}
        if not hidden:
            return raw, None
        shown = {name: self._shown(name, value) for name, value in hidden.items()}
        return _dumped(values | shown), self._privacy.seal(_dumped(hidden))

    def _shown(self, name: str, value: Any) -> str:
        assert self._privacy is not None
        text = value if isinstance(value, str) else _dumped(value)
        return self._privacy.token(text) if self._columns[name] == "token" else MASK

    def reveal(self, raw: str | None, sealed: str | None) -> str | None:
        """Return the row as it was read.

        Raises:
            ConfigError: The key it was sealed with is not among ours.
        """
        if sealed is None:
            return raw
        try:
            if self._privacy is None:
                raise ValueError("no key")
            hidden = json.loads(self._privacy.open(sealed))
        except ValueError as error:
            raise ConfigError(
                f"a row of quarantine cannot be opened: {error}",
                "add the key that was in use then to the older keys of the privacy block, or after "
                "a comma in DPP_PRIVACY_KEY",
            ) from None
        if isinstance(hidden, str):
            return hidden
        return _dumped((parse_values(raw) or {}) | hidden)


def _dumped(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


UNPROTECTED = Protection({}, None)
"""For datasets without a protected column."""
