"""Why a comparison cannot be made."""


class CannotCompare(Exception):
    """The stream cannot be compared; the text says why and what to do."""


class BadList(CannotCompare):
    """The list of writes cannot be used; the text names the file and the line."""
