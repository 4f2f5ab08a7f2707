"""The affinity key: tells requests of one conversation to engines with several places. Pure.

Of several replicas, or servers, one has the beginning of a conversation in its cache. Whoever
chooses among them needs to know which requests belong together, and nothing else about them.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec

from trio_gateway.models.need.measured_form import Form

# Texts are nobody's business, nor whether two of them are the same: each run has keys of its own.
_SALT = secrets.token_bytes(16)
_KEY_BYTES = 8


def affinity_key(
    owner: str, model: str, form: Form, session: str | None, thread: bytes | None = None
) -> str | None:
    """The same 16 hex digits for all turns of a conversation; None: nothing tells one, as of a
    request that no text is generated for.

    The system text counts as well as the first turn: where all conversations start with the same
    word, it is what they differ in. A clock in it makes other keys, and leaves nothing in the cache
    that could be missed.

    Args:
        owner: the name of the API key; others never have the same.
        session: what its client calls the conversation.
        thread: the first turn that was seen of it, as `CacheBreaks` tells; it may have been left
            out since, for want of room.
    """
    try:
        beginning = form.beginning()
    except RecursionError:  # an engine refuses it as well
        return None
    if beginning is None:
        return None
    told: tuple[object, ...] = (session,)
    if session is None:
        told = beginning.system, beginning.turn if thread is None else thread
    text = msgspec.json.encode((owner, model, form.kind, *told))
    return hashlib.blake2b(text, key=_SALT, digest_size=_KEY_BYTES).hexdigest()
