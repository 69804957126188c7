"""Text from outside, made safe to show on a terminal or in a line of the log.

Names, documents and servers' messages may hold control characters. Escape sequences move the cursor, set the window's
title or hide what was printed; a line break forges a line; marks of direction change the order in which a text is read.
`plain` escapes them as JSON does, so valid JSON stays valid JSON with the same value.
"""


def plain(text: str, keep: str = "") -> str:
    """The text with every invisible character escaped, except spaces of any width and those in `keep`.

    Those are the control characters C0, C1 and DEL, marks of direction and other marks without a width, line and
    paragraph separators, half surrogates and code points that are not assigned.
    """
    if text.isprintable():
        return text
    return "".join(each if each in keep or _visible(each) else _escaped(each) for each in text)


def _visible(character: str) -> bool:
    import unicodedata

    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    number = ord(character)
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    high, low = divmod(number - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
