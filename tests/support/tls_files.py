"""Certificates of a CA that a test has made, as files, and clients that trust it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from trio_gateway.config.access_schema import TlsConfig


def write_certificate(ca: trustme.CA, folder: Path, name: str = "localhost") -> TlsConfig:
    issued = ca.issue_cert(name)
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return TlsConfig(certificate=certificate, key=key)


def client_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context
