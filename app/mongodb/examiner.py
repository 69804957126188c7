"""What `changewire doctor` asks of MongoDB beside the checks that a watcher has to pass anyway: version, kind of
deployment, the account's privileges, and how far the oplog reaches back.

Privileges are read from `connectionStatus`, which every account may ask about itself. Each answer is a Finding; nothing
is changed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import ChangewireError, SourceUnavailable
from app.domain.findings import Finding, Level
from app.domain.lag import Oplog
from app.domain.watcher import Watcher
from app.mongodb import images
from app.mongodb.answers import Misfit
from app.mongodb.codes import Meaning, meaning_of, refuses_account
from app.mongodb.described import described_by, description
from app.mongodb.errors import translated
from app.mongodb.privileges import NOBODY, Privileges
from app.mongodb.probe import DeploymentProbe
from app.mongodb.stream import COMMENT
from app.mongodb.words import quiet_words, words

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

ABOUT: Final = "MongoDB"
SECONDS: Final = 5.0
OLDEST: Final = (4, 4)
IMAGES: Final = (6, 0)
WINDOW_SECONDS: Final = 24 * 3600
"""A full oplog that reaches back less far than a day leaves no night to act in."""
READ_WRITE: Final = ("find", "insert", "update", "remove", "createCollection", "listCollections")
"""What the registry and the checkpoints need of the role readWrite."""
MANY: Final = 50
"""From so many change streams on, reading the oplog for each of them costs more than all else."""
_COMMENT_OF_CURSOR: Final = "$cursor.originatingCommand.comment"
_WHERE: Final = (
    "see that MONGO_URI names the right hosts, that mongod runs and listens there, and that no firewall is in between"
)


class MongoExaminer:
    """The questions. `reach` comes first; the others expect that it found a server."""

    def __init__(
        self,
        client: "AsyncIOMotorClient[Mapping[str, Any]]",
        probe: DeploymentProbe,
    ) -> None:
        self._client = client
        self._probe = probe
        self.version = (0, 0)
        self.now = 0
        """The server's operation time in seconds since 1970."""
        self.privileges = NOBODY
        self.oplog: Oplog | None = None

    async def reach(self) -> list[Finding]:
        """Whether it answers, what it is, and who we are there. What follows makes sense only without a problem."""
        try:
            with translated("asking what it is"):
                self.now = await self._probe.ping()
                build = await self._ask({"buildInfo": 1})
                hello = await self._ask({"hello": 1})
        except ChangewireError as error:
            return [_unreachable(error, self._probe.misfit())]
        reached = Finding(ABOUT, "reachable", Level.OK, "answers")
        return [reached, self._version(str(build["version"])), _kind(hello), await self._account()]

    async def look_at_state(self, database: str) -> Finding:
        """Whether the account may keep the registry in the state database."""
        check, advice = "registry", f"grant the account readWrite on {database} (CHANGEWIRE_STATE_DB)"
        missing = self.privileges.missing(database, "watchers", READ_WRITE)
        if missing:
            return Finding(ABOUT, check, Level.PROBLEM, f"lacks {', '.join(missing)} on {database}", advice)
        try:
            with pymongo.timeout(SECONDS):
                await self._client[database]["watchers"].find_one({}, {"_id": 1})
        except PyMongoError as error:
            return Finding(ABOUT, check, Level.PROBLEM, f"{database} cannot be read: {quiet_words(error)}", advice)
        return Finding(ABOUT, check, Level.OK, f"{database} may be read and written")

    async def look_at_oplog(self) -> Finding:
        """How far the oplog reaches back: a watcher can be paused that long without losing anything."""
        check = "oplog window"
        try:
            self.oplog = await self._probe.read_oplog()
        except SourceUnavailable as error:
            return Finding(ABOUT, check, Level.WARNING, str(error), "try again")
        if self.oplog is None:
            return Finding(
                ABOUT, check, Level.WARNING,
                "local.oplog.rs may not be read (mongos has none): how much history is left is not known, and a "
                "watcher cannot start at `earliest`",
                "grant the account the role read on local, or clusterMonitor; on a sharded cluster watch each shard's",
            )  # fmt: skip
        window = max(0, self.now - self.oplog.first)
        reach = f"reaches back {duration(window)}"
        if not self.oplog.full:
            return Finding(ABOUT, check, Level.OK, f"{reach} and still grows")
        if window < WINDOW_SECONDS:
            return Finding(
                ABOUT, check, Level.WARNING, f"{reach}, and old entries give way already",
                "enlarge it on each member: db.adminCommand({replSetResizeOplog: 1, size: Double(MB)}); on Atlas, its "
                "minimum window",
            )  # fmt: skip
        return Finding(ABOUT, check, Level.OK, reach)

    async def look_at_scope(self, watcher: Watcher, state_database: str) -> Finding | None:
        """How many collections a watcher of a whole database or deployment reads now; None for one of a collection."""
        source, check = watcher.source, "collections"
        if not source.is_scope:
            return None
        try:
            with pymongo.timeout(SECONDS):
                databases = [source.database] if source.database else await self._client.list_database_names()
                seen = [
                    (database, name)
                    for database in databases
                    if database != state_database and source.has_database(database)
                    for name in await self._client[database].list_collection_names()
                ]
        except PyMongoError as error:
            return Finding(watcher.name, check, Level.OK, f"not counted: {quiet_words(error)}")
        read = sum(source.has(*each) for each in seen)
        patterns = zip(source.include, source.choice.include, strict=False)
        idle = [entry for entry, pattern in patterns if not any(pattern.has(*each) for each in seen)]
        said = f"{read} of {source.namespace} are read now" + (", and new ones that fit" if source.include else "")
        if idle:
            advice = "nothing, if such collections are to come; else correct source.include"
            return Finding(watcher.name, check, Level.WARNING, f"{said}; none fits {', '.join(idle)} yet", advice)
        return Finding(watcher.name, check, Level.OK, said)

    async def look_at_streams(self) -> Finding:
        """How many change streams are open on the server that answers: it reads its oplog once for each."""
        check, everybody = "change streams", True
        try:
            try:
                open_now = await self._count_streams(everybody=True)
            except OperationFailure as error:
                if meaning_of(error) is not Meaning.PRIVILEGE_MISSING:
                    raise
                everybody = False
                open_now = await self._count_streams(everybody=False)
        except PyMongoError as error:
            return Finding(ABOUT, check, Level.WARNING, f"are not counted: {quiet_words(error)}", "try again")
        ours, others = open_now.get(COMMENT, 0), open_now.get("", 0)
        found = f"{ours} of Changewire and {others} of other programs open"
        if not everybody:
            found += " by this account; those of others it may not see (inprog, in the role clusterMonitor)"
        if ours + others < MANY:
            return Finding(ABOUT, check, Level.OK, found)
        return Finding(
            ABOUT, check, Level.WARNING,
            f"{found}; MongoDB reads its oplog once for each: at 100 changes a second it took 8 ms of processor time "
            "for a change with 50, and 14 ms with 500",
            "let watchers share: see `reads_why` in their status, and below; watch whole databases; or join the other "
            "programs' change streams",
        )  # fmt: skip

    async def _count_streams(self, *, everybody: bool) -> dict[str, int]:
        """Count the open change streams by whether they are Changewire's (COMMENT) or not ("")."""
        stages: list[Mapping[str, Any]] = [
            {"$currentOp": {"idleCursors": True, **({"allUsers": True} if everybody else {})}},
            {"$match": {"cursor.originatingCommand.pipeline.0.$changeStream": {"$exists": True}}},
            {"$group": {"_id": {"$cond": [{"$eq": [_COMMENT_OF_CURSOR, COMMENT]}, COMMENT, ""]}, "count": {"$sum": 1}}},
        ]
        reply = await self._ask({"aggregate": 1, "pipeline": stages, "cursor": {}})
        return {str(each["_id"]): int(each["count"]) for each in reply["cursor"]["firstBatch"]}

    async def look_at_images(self, watcher: Watcher) -> Finding | None:
        """Whether the images that a watcher asks for are kept, or can be switched on; None where it asks for none."""
        source, check = watcher.source, "pre-images"
        if not source.pre_and_post_images:
            return None  # `required` ones are looked at by the trial of the source
        if self.version < IMAGES:
            return Finding(
                watcher.name, check, Level.PROBLEM, f"MongoDB {_dotted(self.version)} keeps none",
                "update MongoDB to 6.0 or later, or set source.pre_and_post_images to false",
            )  # fmt: skip
        findings = [await self._images_of(watcher, *each) for each in source.named]
        return next((each for each in findings if each.level is not Level.OK), findings[0] if findings else None)

    async def _images_of(self, watcher: Watcher, database: str, collection: str) -> Finding:
        check, found = "pre-images", None
        try:
            listed = await self._ask(described_by(collection), database)
            found = description(listed)
        except OperationFailure:
            pass  # not open to every account: then the privileges below decide
        except PyMongoError as error:
            return Finding(watcher.name, check, Level.PROBLEM, quiet_words(error), "try again")
        if images.are_kept(found):
            return Finding(watcher.name, check, Level.OK, "are kept")
        action = "collMod" if found else "createCollection"
        if self.privileges.missing(database, collection, (action,)):
            command = "collMod" if found else "create"
            return Finding(
                watcher.name, check, Level.PROBLEM, f"are not kept, and the account lacks {action} to switch them on",
                f'run db.runCommand({{{command}: "{collection}", {images.OPTION_TEXT}}}) in {database}, '
                f"or grant {action} on {database}.{collection}",
            )  # fmt: skip
        return Finding(watcher.name, check, Level.OK, "are switched on when the watcher starts")

    def look_at_checkpoint(self, watcher: Watcher, place: CheckpointPlace) -> Finding | None:
        """What the account lacks to keep the watcher's position in a place; None where it lacks nothing."""
        missing = self.privileges.missing(place.database, place.collection, READ_WRITE)
        if not missing:
            return None
        return Finding(
            watcher.name, "checkpoint", Level.PROBLEM, f"the account lacks {', '.join(missing)} on {place.namespace}",
            f"grant it readWrite on {place.database}",
        )  # fmt: skip

    async def _ask(self, command: dict[str, Any], database: str = "admin") -> Mapping[str, Any]:
        with pymongo.timeout(SECONDS):
            reply: Mapping[str, Any] = await self._client[database].command(command)
        return reply

    def _version(self, text: str) -> Finding:
        major, minor = (int(part) for part in text.split(".")[:2])
        self.version = (major, minor)
        if self.version < OLDEST:
            advice = f"update it: Changewire needs {_dotted(OLDEST)} or later"
            return Finding(ABOUT, "version", Level.PROBLEM, text, advice)
        if self.version < IMAGES:
            advice = "nothing, unless a watcher needs pre-images: these came with 6.0"
            return Finding(ABOUT, "version", Level.WARNING, text, advice)
        return Finding(ABOUT, "version", Level.OK, text)

    async def _account(self) -> Finding:
        try:
            self.privileges = Privileges(await self._ask({"connectionStatus": 1, "showPrivileges": True}))
        except PyMongoError as error:
            return Finding(ABOUT, "account", Level.WARNING, f"is not told: {quiet_words(error)}", "try again")
        if self.privileges.users:
            return Finding(ABOUT, "account", Level.OK, f"signed in as {', '.join(self.privileges.users)}")
        try:
            await self._ask({"listDatabases": 1, "nameOnly": True, "authorizedDatabases": False})
        except OperationFailure as error:
            if meaning_of(error) is Meaning.PRIVILEGE_MISSING:
                return Finding(
                    ABOUT, "account", Level.PROBLEM, "MONGO_URI names no user, and the server wants one",
                    "write mongodb://user:password@host… (an @ in the password as %40), with authSource where the "
                    "user is kept in another database than admin",
                )  # fmt: skip
        except PyMongoError:
            pass
        return Finding(ABOUT, "account", Level.OK, "none; the server asks for none")


def _unreachable(error: ChangewireError, misfit: Misfit | None) -> Finding:
    cause = error.__cause__
    if misfit is not None:
        return Finding(ABOUT, "replica set", Level.PROBLEM, misfit.found, misfit.advice)
    if isinstance(cause, OperationFailure) and refuses_account(cause):
        return Finding(
            ABOUT, "account", Level.PROBLEM, f"is refused: {words(cause)}",
            "correct user and password in MONGO_URI; authSource has to name the database that keeps the user (admin)",
        )  # fmt: skip
    return Finding(ABOUT, "reachable", Level.PROBLEM, str(error), _WHERE)


def _kind(hello: Mapping[str, Any]) -> Finding:
    if hello.get("msg") == "isdbgrid":
        return Finding(ABOUT, "replica set", Level.OK, "a sharded cluster, by its mongos")
    members = len(hello.get("hosts") or ())
    said = f"{hello.get('setName')}, {members} member{'s' * (members != 1)}"
    return Finding(ABOUT, "replica set", Level.OK, said)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def duration(seconds: float) -> str:
    """Write a length of time in its largest fitting unit, such as `36 h`."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
