"""Medium: what a request may show to a model besides text. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Medium(enum.Enum):
    """`ANY`: what does not say which it is."""

    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    ANY = "multimodal"


Refusals = Mapping[Medium, str]  # why each of these is refused
