"""Files as bad disks, cut connections and careless hands leave them."""

BLOCK = 512


def flip(content, draw):
    """One byte is another."""
    changed, place = bytearray(content), draw.randrange(len(content))
    changed[place] ^= 1 << draw.randrange(8) if draw.random() < 0.5 else draw.randrange(1, 256)
    return bytes(changed)


def cut(content, draw):
    """It ends too early."""
    return content[: draw.randrange(len(content))]


def blank(content, draw):
    """A block was never written."""
    start = draw.randrange(0, len(content), BLOCK)
    length = min(BLOCK, len(content) - start)
    return content[:start] + bytes(length) + content[start + length :]


def repeat(content, draw):
    """A block is there twice, the second time in the place of another."""
    size = max(1, min(BLOCK, len(content) // 2))
    source, target = (draw.randrange(0, len(content) - size + 1, size) for _ in range(2))
    return content[:target] + content[source : source + size] + content[target + size :]


def insert(content, draw):
    """Something came in between."""
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.randbytes(draw.randrange(1, 9)) + content[place:]


def append(content, draw):
    """Something came after."""
    return content + draw.randbytes(draw.randrange(1, 600))


def lines(content, draw):
    """Line ends were "translated"."""
    return content.replace(b"\n", b"\r\n") if draw.random() < 0.5 else content.replace(b"\r", b"")


KINDS = (flip, flip, flip, cut, blank, repeat, insert, append, lines)


def damaged(content, draw):
    """The content with a damage of some kind; sometimes none that changes anything."""
    return draw.choice(KINDS)(content, draw)
