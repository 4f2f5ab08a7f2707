"""API keys and their scrypt hashes: `scrypt:N:R:P:SALT:HASH`, salt and hash in base64url.

A hash in a configuration means that whoever reads the file has no key. 16384:8:1 takes 16 MiB and
some 50 ms of CPU, so it is checked once for each key and run (`server/access/key_ring.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

import msgspec

KEY_PREFIX, HASH_PREFIX = "tg-", "scrypt:"
KEY_BYTES, SALT_BYTES, DIGEST_BYTES = 32, 16, 32
COST_N, COST_R, COST_P = 2**14, 8, 1  # as OWASP recommends for interactive use, at 16 MiB

_MEMORY_MAX_BYTES = 256 * 2**20  # of one check, whatever parameters a file names
_WORK_MAX = 2**24  # N * R * P: less than 10 s


class KeyHash(msgspec.Struct, frozen=True):
    """A parsed hash text."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, key: str) -> bool:
        """Costs time and memory on purpose: call it in a thread."""
        found = _scrypt(key, self.n, self.r, self.p, self.salt, len(self.digest))
        return hmac.compare_digest(found, self.digest)

    def __str__(self) -> str:
        salt, digest = _encode(self.salt), _encode(self.digest)
        return f"{HASH_PREFIX}{self.n}:{self.r}:{self.p}:{salt}:{digest}"


def new_key() -> str:
    """A random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_of(key: str) -> KeyHash:
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _scrypt(key, COST_N, COST_R, COST_P, salt, DIGEST_BYTES)
    return KeyHash(COST_N, COST_R, COST_P, salt, digest)


def is_hash(text: str) -> bool:
    return text.startswith(HASH_PREFIX)


def parse_hash(text: str) -> KeyHash:
    """Raises ValueError: it is none, or one that would cost too much to check."""
    parts = text.removeprefix(HASH_PREFIX).split(":")
    if not is_hash(text) or len(parts) != 5:
        raise ValueError("not of the form scrypt:N:R:P:SALT:HASH")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts[:3]):
        raise ValueError("N, R and P are not numbers")
    n, r, p = (int(part) for part in parts[:3])
    if n < 2 or n & (n - 1) or not r or not p:
        raise ValueError("N is not a power of 2, or R or P is 0")
    if 128 * n * r > _MEMORY_MAX_BYTES or n * r * p > _WORK_MAX:
        raise ValueError("N, R and P are too large")
    try:
        salt, digest = _decode(parts[3]), _decode(parts[4])
    except binascii.Error:
        raise ValueError("SALT or HASH is not base64url") from None
    if len(salt) < 8 or len(digest) < 16:
        raise ValueError("SALT or HASH is too short")
    return KeyHash(n, r, p, salt, digest)


def _scrypt(key: str, n: int, r: int, p: int, salt: bytes, length: int) -> bytes:
    room = 2 * _MEMORY_MAX_BYTES  # OpenSSL needs a little more than the 128 * N * R
    return hashlib.scrypt(key.encode(), salt=salt, n=n, r=r, p=p, maxmem=room, dklen=length)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
