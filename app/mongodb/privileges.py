"""What the account in MONGO_URI may do, as `connectionStatus` tells it; every account may ask that about itself."""

from collections.abc import Iterable, Mapping
from typing import Any, Final


class Privileges:
    """What an account may do. Resources as in MongoDB's "Resource Document"."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        """`status` is the answer of `connectionStatus` with `showPrivileges`."""
        self.users = [str(user["user"]) for user in status["authInfo"]["authenticatedUsers"]]
        self._granted = status["authInfo"].get("authenticatedUserPrivileges") or ()

    def missing(self, database: str, collection: str, actions: Iterable[str]) -> list[str]:
        """Return those of `actions` on the collection that the account lacks; none where nobody signed in."""
        if not self.users:
            return []
        has = {
            action
            for each in self._granted
            if _covers(each["resource"], database, collection)
            for action in each["actions"]
        }
        return [action for action in actions if action not in has and "anyAction" not in has]


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    if resource.get("anyResource"):
        return True
    if "db" not in resource:
        return False
    if resource["collection"] == "" and collection.startswith("system."):
        return False
    return resource["db"] in ("", database) and resource["collection"] in ("", collection)


NOBODY: Final = Privileges({"authInfo": {"authenticatedUsers": []}})
"""Before anybody has signed in."""
