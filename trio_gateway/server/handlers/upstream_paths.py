"""What may be asked of one engine through `/upstream`: no paths that lead elsewhere. Pure.

llama-server's `POST /slots/0?action=save` writes files. Where the gateway keeps KV caches across
swaps it does so in the gateway's own folder, next to what the gateway saved of other conversations.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from trio_gateway.rawjson import NameTwice, check_names, decode_or_none, members_or_none
from trio_gateway.server.api.errors import ApiError

_LEADS_ELSEWHERE = (".", "..")
_SLOT_ACTION = re.compile(r"(^|/)slots/[^/]*/?$", re.IGNORECASE)
# As llama-server has it, and stricter: engines differ in what they take for a plain name.
_PLAIN_NAME = re.compile(r"[\w\-][\w\-. ]{0,199}(?<![. ])", re.ASCII)


def check_path(path: str) -> None:
    """Of the part after the model's name, as the client wrote it.

    Raises:
        ApiError: 400, it leads out of where it begins, or has control characters in it.
    """
    decoded = unquote(path)
    steps = (step.partition(";")[0] for step in re.split(r"[/\\]", decoded))
    if any(step in _LEADS_ELSEWHERE for step in steps):
        message = "the path contains `.` or `..`; write the path that it leads to"
        raise ApiError(400, message, code="invalid_path")
    if any(letter < " " or letter == "\x7f" for letter in decoded):
        message = "the path contains a control character"
        raise ApiError(400, message, code="invalid_path")


def check_slot_action(
    model_name: str, method: str, path: str, query: str, body: bytes, *, is_carried: bool
) -> None:
    """Of any request; what does nothing with slots may pass.

    Args:
        is_carried: the gateway saves and restores the slots of this model itself.

    Raises:
        ApiError: 403, they are the gateway's; 400, the file's name is not a plain one.
    """
    if method == "GET" or not _SLOT_ACTION.search(unquote(path)):
        return
    if is_carried:
        message = (
            f"the gateway itself saves and restores the slots of {model_name}; set "
            "kv_carryover = false for this model to do it by hand"
        )
        raise ApiError(403, message, "permission_error", code="slots_in_use")
    if "filename" in unquote(query) or not _names_a_plain_file(body):
        message = "`filename` must be a plain name in the body: letters, digits, `-`, `_`, `.`"
        raise ApiError(400, message, code="invalid_filename", param="filename")


def changes_lora_scales(method: str, path: str) -> bool:
    """Of a llama-server."""
    return method != "GET" and unquote(path).rstrip("/").endswith("/lora-adapters")


def _names_a_plain_file(body: bytes) -> bool:
    """Also if it names none: an erased slot needs no file."""
    if not body.strip():
        return True
    fields = members_or_none(body)
    if fields is None:
        return False
    try:
        check_names(body, fields)
    except NameTwice:
        return False
    if "filename" not in fields:
        return True
    name = decode_or_none(fields["filename"], str)
    return name is not None and _PLAIN_NAME.fullmatch(name) is not None
