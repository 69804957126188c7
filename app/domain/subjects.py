"""Subjects and stream names: from a watcher's template to what NATS accepts, and whether two subject filters overlap.

Names of collections may hold dots, spaces and wildcards, which have a meaning in a subject. They are escaped as in a
URL (`%2E`), and `%` itself too, so that `unescape` gives the name back.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

MAX_SUBJECT = 4000
"""The longest subject in bytes. NATS accepts commands of 4,096 bytes (max_control_line), with a reply subject and two
sizes, and closes the connection on a longer one."""
_RESERVED_FIRST = frozenset({"_INBOX", "_R_", "_GR_"})
"""Answers to requests, imported services and gateways: a message there reaches a wrong client, or none."""
_RESERVED = frozenset({"$JS", "$SYS"})
"""An account that imports another one's JetStream API or system services has these behind a prefix of its own."""
FIELDS = ("stream", "database", "collection", "operation")
NAMELESS = "_"
"""Stands for a name that a change does not have, such as the collection of a dropDatabase."""
_LONGEST = {"database": 3 * 63, "collection": 3 * 253}
"""The most bytes of an escaped name: MongoDB's limits, and each byte may take three."""
_FIELD = re.compile(r"\{([^{}]*)\}")
# White space, control characters, the separator, the wildcards, the escape, a path's and a template's characters.
_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f.*>%/\\{}]")


def escape(name: str) -> str:
    """Return `name` as one subject token, which is also a valid stream name; `unescape` gives `name` back."""
    escaped = _FORBIDDEN.sub(lambda found: "".join(f"%{byte:02X}" for byte in found.group().encode()), name)
    return "%24" + escaped[1:] if escaped.startswith("$") else escaped


def unescape(token: str) -> str:
    """Return the name that `escape` made `token` from."""
    return unquote(token)


def template_problem(template: str) -> str | None:
    """Say in a sentence what is wrong with a subject template, or return None."""
    unknown = [field for field in _FIELD.findall(template) if field not in FIELDS]
    if unknown:
        return (
            f"has an unknown field {{{unknown[0]}}}; known fields: {', '.join('{' + field + '}' for field in FIELDS)}"
        )
    literal = _FIELD.sub("x", template)
    if "{" in literal or "}" in literal:
        return "has a brace that is not closed"
    return subject_problem(literal)


def subject_problem(subject: str) -> str | None:
    """Say in a sentence why `subject` cannot be published to, or return None."""
    if not subject:
        return "is empty"
    if re.search(r"[\s\x00-\x1f\x7f]", subject):
        return "holds white space or a control character"
    if any(not token for token in subject.split(".")):
        return "has an empty part: it starts or ends with a dot, or has two in a row"
    if "*" in subject or ">" in subject:
        return "holds a wildcard (* or >), which cannot be published to"
    if len(subject.encode()) > MAX_SUBJECT:
        return f"is longer than {MAX_SUBJECT} bytes; a server closes the connection on a line of more than 4096"
    first, *_ = parts = subject.split(".")
    if first.startswith("$") or first in _RESERVED_FIRST:
        kept = "$" if first.startswith("$") else first
        return f"starts with {kept}, which NATS reserves"
    reserved = next((part for part in parts if part in _RESERVED), None)
    if reserved is not None:
        return f"has the part {reserved}, which NATS uses for services shared between accounts"
    return None


def stream_name_problem(name: str) -> str | None:
    """Say in a sentence why NATS refuses `name` for a stream, or return None."""
    if not name:
        return "is empty"
    if len(name.encode()) > 255:
        return (
            "is longer than the 255 bytes that NATS allows for a stream, or 251 and -DLQ for its dead letters; name a "
            "shorter one"
        )
    if re.search(r"[\s\x00-\x1f\x7f.*>/\\]", name):
        return "holds a character that NATS does not allow in a stream's name (white space . * > / \\)"
    if "{" in name or "}" in name:
        return "holds a brace, which marks a field in a subject template"
    return None


@dataclass(frozen=True, slots=True)
class Template:
    """What a watcher's subjects are made from: `text` has everything filled in that is the same for all its changes.

    Open is the operation, and what a watcher reads more than one of: collections, and databases too."""

    text: str

    @property
    def names_sources(self) -> bool:
        """Whether a subject depends on its change's database or collection."""
        return "{database}" in self.text or "{collection}" in self.text

    @property
    def pieces(self) -> list[str] | None:
        """The template as text and name of a field by turns, where `names_sources` says so; else None."""
        return _FIELD.split(self.text) if self.names_sources else None

    def subject(self, database: str, collection: str, operation: str) -> str:
        """Return the subject of a change. A name that it does not have is empty, and becomes `NAMELESS`."""
        if not self.names_sources:
            return self.text.replace("{operation}", operation)
        values = {
            "database": escape(database) or NAMELESS, "collection": escape(collection) or NAMELESS,
            "operation": operation,
        }  # fmt: skip
        return _FIELD.sub(lambda found: values[found.group(1)], self.text)

    def filter(self, operation: str | None = None) -> str:
        """Return the filter that covers every subject, or those of one operation."""
        known = self.text if operation is None else self.text.replace("{operation}", operation)
        return ".".join("*" if "{" in token else token for token in known.split("."))

    def most_bytes(self, operation: str) -> int:
        """Return the most bytes of a subject with this operation, whatever the names of the collections are."""
        longest = _FIELD.sub(lambda found: "x" * _LONGEST.get(found.group(1), len(operation)), self.text)
        return len(longest.encode())


def begin(template: str, *, stream: str, database: str, collection: str) -> Template:
    """Fill in what all changes of a watcher have in common. `stream` stands as it is, names are escaped.

    An empty name is left open."""
    values = {"stream": stream, "database": escape(database), "collection": escape(collection)}
    return Template(_FIELD.sub(lambda found: values.get(found.group(1)) or found.group(), template))


def is_reserved(subject: str) -> bool:
    """Tell whether a subject that a change's names have completed belongs to NATS."""
    return subject.partition(".")[0] in _RESERVED_FIRST


def covers(filter_: str, space_: str) -> bool:
    """Tell whether every subject that `space_` matches is matched by `filter_`."""
    wanted, offered = space_.split("."), filter_.split(".")
    for index, token in enumerate(offered):
        if token == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">" or (token != "*" and token != wanted[index]):
            return False
    return len(wanted) == len(offered)


def overlap(one: str, other: str) -> bool:
    """Tell whether some subject is matched by both filters."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)
