"""Which items of a run are files, by the ends of their names; everything else in an item column is a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

MEDIA: Mapping[str, str] = MappingProxyType(
    {
        ".webp": "image/webp",
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".ogg": "audio/ogg",
        ".wav": "audio/wav",
        ".mp3": "audio/mpeg",
        ".flac": "audio/flac",
    }
)


def media_type(item: object) -> str:
    """MIME type of a picture or sound, "" where an item is a text."""
    return MEDIA.get(PurePosixPath(str(item)).suffix.lower(), "")
