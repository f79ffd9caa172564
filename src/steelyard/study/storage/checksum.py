"""Checksums of what is kept on disk: a flipped bit is noticed, and never read as another number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

SIZE = 16  # bytes


def checksum(values: Iterable[object]) -> str:
    """Of a row's values, in order; types count, so that the text 1 is not the number 1."""
    found = hashlib.blake2b(digest_size=SIZE)
    for value in values:
        text = repr(value).encode()
        found.update(b"%d:" % len(text) + text)
    return found.hexdigest()


def seal(head: bytes, content: bytes) -> bytes:
    """A file of these bytes that `unseal` can check; `head` says what kind of file it is."""
    return head + _digest(head, content) + content


def unseal(head: bytes, file: bytes) -> bytes | None:
    """What was sealed; None where a byte is not as it was written."""
    found, digest, content = file[: len(head)], file[len(head) : len(head) + SIZE], file[len(head) + SIZE :]
    return content if found == head and digest == _digest(head, content) else None


def _digest(head: bytes, content: bytes) -> bytes:
    found = hashlib.blake2b(head, digest_size=SIZE)
    found.update(content)
    return found.digest()
