"""Passwords of the embedded servers."""

import base64
import json

from embedded.secrets import load_secrets


def test_secrets_are_made_once_for_their_owner_only(tmp_path):
    """The second call gives the first one's secrets; only the owner may read them."""
    local = tmp_path / ".local"
    first = load_secrets(local)
    assert load_secrets(local) == first
    assert (local / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert local.stat().st_mode & 0o777 == 0o700
    assert len(base64.urlsafe_b64decode(first.prefect_encryption_key)) == 32
    assert load_secrets(tmp_path / "other").warehouse_password != first.warehouse_password
    assert first.warehouse_password not in repr(first)


def test_secret_that_is_missing_is_added_to_the_others(tmp_path):
    """A file of an older or newer version keeps what it has: the data depend on it."""
    kept = {"warehouse_password": "old", "of_a_newer_version": "x"}
    (tmp_path / "secrets.json").write_text(json.dumps(kept))
    made = load_secrets(tmp_path)
    assert made.warehouse_password == "old"
    assert made.s3_secret_key
    assert load_secrets(tmp_path) == made
    assert json.loads((tmp_path / "secrets.json").read_text())["of_a_newer_version"] == "x"
