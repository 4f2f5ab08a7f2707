"""BodySource: a request's body that goes to an engine in pieces."""

from __future__ import annotations

import abc


class BodySource(abc.ABC):
    """`length` in bytes, None if unknown. `request` is one and the same object for all
    sources that give the same request's body, so that a second try is known as such."""

    length: int | None
    request: object

    @abc.abstractmethod
    def rewind(self) -> None:
        """Begin again. Only while `can_repeat`."""

    @property
    @abc.abstractmethod
    def can_repeat(self) -> bool:
        """Whether all that was given out can be given out once more."""

    @property
    @abc.abstractmethod
    def is_begun(self) -> bool:
        """Whether a piece was given out since the last `rewind`."""

    @property
    @abc.abstractmethod
    def is_complete(self) -> bool:
        """Whether the last piece was given out."""

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """The next piece, `b""` at the end. Raises whatever is wrong with the request."""
