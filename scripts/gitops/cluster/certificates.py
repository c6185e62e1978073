"""Certificates for servers on this machine: an authority of its own, one certificate, and a key for tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from contract.errors import Refused


def make(folder: Path, address: str) -> None:
    """Writes ca.crt, server.crt and server.key for an address, and accounts.key, unless they are there and valid for
    another month. Keys are readable by their owner alone; that of the authority is not kept. Raises Refused where the
    package that makes them is not installed."""
    if _valid(folder / "server.crt"):
        return
    try:
        import trustme
    except ModuleNotFoundError:
        raise Refused("trustme is not installed; run `python scripts/setup.py cluster`") from None
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="model-gitops", organization_unit_name="local")
    own = authority.issue_cert(address, "localhost", not_after=datetime.now(UTC) + timedelta(days=365))
    tokens = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    _write(folder / "ca.crt", authority.cert_pem.bytes())
    _write(folder / "server.key", own.private_key_pem.bytes())
    _write(folder / "accounts.key", tokens.private_key_pem.bytes())
    _write(folder / "server.crt", own.cert_chain_pems[0].bytes())


def _valid(file: Path) -> bool:
    if not file.is_file():
        return False
    found = x509.load_pem_x509_certificate(file.read_bytes())
    return found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=30)


def _write(file: Path, data: bytes) -> None:
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(data)
    new.replace(file)
