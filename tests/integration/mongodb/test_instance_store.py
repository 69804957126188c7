"""What a person or another version has written among the instances' documents does not keep the others from being
read."""

from datetime import UTC, datetime
from typing import Any

import pymongo
import pytest

from app.domain.instances import Member, Owner
from app.mongodb.deployment import MongoDeployment

STRANGE: list[dict[str, Any]] = [
    {"_id": "stray"},
    {"_id": 7, "session": "s", "seen": datetime.now(UTC)},
    {"_id": "later", "session": "s", "seen": "today"},
    {"_id": "half", "session": "s", "seen": datetime.now(UTC), "weight": "heavy"},
]


async def test_documents_that_are_no_reports_or_owners_are_passed_over(mongo_uri: str, database: str) -> None:
    deployment = MongoDeployment(mongo_uri, state_database=database)
    store = deployment.instances()
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        state = client[database]
        state["members"].insert_many(STRANGE)
        assert await store.join(Member("one", "s1"), None)
        assert [member.name for member in await store.members()] == ["one"]
        assert await store.change_owners(0, {"a": Owner("one"), "b": Owner("one")}, ())
        state["registry"].update_one({"_id": "owners"}, {"$set": {"owners.a": "junk"}, "$inc": {"revision": 1}})
        _, owners = await store.owners(1)
        assert owners is not None
        assert (owners.revision, list(owners.of)) == (2, ["b"])
        assert await store.change_owners(2, {"a": Owner("one")}, ()), "what was junk is written over"
        _, owners = await store.owners(2)
        assert owners is not None
        assert sorted(owners.of) == ["a", "b"]
        client.drop_database(database)
    deployment.close()


@pytest.fixture
def database(unique: str) -> str:
    return f"state_{unique}"
