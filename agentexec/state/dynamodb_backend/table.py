"""The table: its definition and its client.

Every item has the keys `pk` and `sk`, both texts, and perhaps `ttl`: the second after which DynamoDB may remove it. There is one
table, without an index. `log.py`, `shared.py` and `messages.py` have the items.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
except ImportError as error:
    raise ImportError(f"{error}; install it with pip install 'agentexec[dynamodb]'") from error

from agentexec.errors import UnavailableError, UsageError
from agentexec.state.dynamodb_backend.clock import ServerClock
from agentexec.state.dynamodb_backend.refusals import (
    OVERTAKEN,
    RefusalError,
    code_of,
    foreign,
    misconfigured,
    translate,
)

TIMEOUTS = {"connect_timeout": 2, "read_timeout": 4}
"""Limits of one try, in seconds."""

TRIES = 4
"""Tries of a request that is throttled or fails on the way, with growing pauses of random length."""

MAX_CONNECTIONS = 64

WRITE_AT_ONCE, READ_AT_ONCE = 25, 100
"""Items of one batch; DynamoDB's limits."""

BATCH_SECONDS = 10.0
"""Time limit for the items of a batch that DynamoDB leaves out because it is busy."""

KEY_ATTRIBUTES = ("pk", "sk")

Item = dict[str, Any]
Key = dict[str, dict[str, str]]


class Own(NamedTuple):
    """Client and lock of one process."""

    pid: int
    client: Any
    lock: threading.Lock


def key(pk: str, sk: str) -> Key:
    """Return the key of an item."""
    return {"pk": {"S": pk}, "sk": {"S": sk}}


class Table:
    """One table. Region, endpoint and credentials come from AWS's own settings; see the guide.

    Args:
        name: Name of the table.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._own: Own | None = None
        self._clock = ServerClock()

    @property
    def client(self) -> Any:
        """Client of this process."""
        return self._mine().client

    @property
    def lock(self) -> threading.Lock:
        """Lock for the threads of this process."""
        return self._mine().lock

    def _mine(self) -> Own:
        """Return what belongs to this process: a fork makes its own, as a lock may be held at that moment."""
        own = self._own
        if own is None or own.pid != os.getpid():
            # Two threads that look at once make one too many. Sessions are not for several threads, clients are.
            config = Config(
                **TIMEOUTS,
                max_pool_connections=MAX_CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": TRIES},
                tcp_keepalive=True,
            )
            client = _new_client(config)
            client.meta.events.register("before-call.dynamodb", self._note_sent)
            client.meta.events.register("after-call.dynamodb", self._note_date)
            own = self._own = Own(os.getpid(), client, threading.Lock())
        return own

    def now(self) -> float:
        """Return the time by DynamoDB's clock, in seconds since the epoch. Raises UnavailableError before its first reply."""
        if not self._clock.is_known:
            with self.translated_errors():
                self.get("ping", "-")
        return self._clock.now()

    def _note_sent(self, context: dict[str, Any], **_: object) -> None:
        context["agentexec_sent"] = self._clock.local()

    def _note_date(self, http_response: Any, context: dict[str, Any], **_: object) -> None:
        date = http_response.headers.get("Date")
        if date and "agentexec_sent" in context:
            self._clock.note(date, context["agentexec_sent"])

    def close(self) -> None:
        """Close the connections. The next call opens them again."""
        own, self._own = self._own, None
        if own is not None and own.pid == os.getpid():
            own.client.close()

    @contextmanager
    def translated_errors(self) -> Generator[None]:
        """Raise UnavailableError, or its subclass RefusalError, instead of botocore's errors."""
        try:
            yield
        except (BotoCoreError, ClientError, ResponseParserError, OSError) as error:
            raise translate(error, self.name) from error

    # Items

    def get(self, pk: str, sk: str) -> Item | None:
        """Return an item as it is now."""
        return self.client.get_item(TableName=self.name, Key=key(pk, sk), ConsistentRead=True).get("Item")

    def put_new(self, item: Item) -> bool:
        """Put an item. False if there is one with its key."""
        return self.put_if(item, "attribute_not_exists(pk)", {})

    def put_if(self, item: Item, condition: str, values: Item, names: dict[str, str] | None = None) -> bool:
        """Put an item if a condition holds for the one that is there."""
        more: Any = {"ExpressionAttributeValues": values} if values else {}
        if names:
            more["ExpressionAttributeNames"] = names
        return self.succeeds(
            self.client.put_item, TableName=self.name, Item=item, ConditionExpression=condition, **more
        )

    @staticmethod
    def succeeds(call: Any, **arguments: Any) -> bool:
        """Call, and return False if the condition does not hold, or somebody else is just changing the item."""
        try:
            call(**arguments)
        except ClientError as error:
            if code_of(error) not in OVERTAKEN:
                raise
            return False
        return True

    def query(self, pk: str, first: str, last: str, **options: Any) -> Generator[Item]:
        """Yield the items of a partition as they are now, from one sort key up to another."""
        more: dict[str, Any] = {}
        while True:
            page = self.client.query(
                TableName=self.name,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
                ExpressionAttributeValues={":pk": {"S": pk}, ":first": {"S": first}, ":last": {"S": last}},
                ConsistentRead=True,
                **options,
                **more,
            )
            yield from page["Items"]
            if "LastEvaluatedKey" not in page or "Limit" in options:
                return
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def read_all(self, keys: Iterable[Key]) -> list[Item]:
        """Return the items with these keys that are there, as they are now."""
        found: list[Item] = []
        for batch in _batches([*{str(each): each for each in keys}.values()], READ_AT_ONCE):
            waiting: Any = {self.name: {"Keys": batch, "ConsistentRead": True}}
            for _ in _tries():
                answer = self.client.batch_get_item(RequestItems=waiting)
                found += answer["Responses"].get(self.name, [])
                waiting = answer.get("UnprocessedKeys")
                if not waiting:
                    break
        return found

    def put_all(self, items: Iterable[Item]) -> None:
        """Put items, whatever is there."""
        self._write([{"PutRequest": {"Item": item}} for item in items])

    def delete_all(self, keys: Iterable[Key]) -> None:
        """Delete items."""
        self._write([{"DeleteRequest": {"Key": each}} for each in keys])

    def _write(self, requests: Sequence[Item]) -> None:
        for batch in _batches(requests, WRITE_AT_ONCE):
            waiting: Any = {self.name: batch}
            for _ in _tries():
                waiting = self.client.batch_write_item(RequestItems=waiting).get("UnprocessedItems")
                if not waiting:
                    break

    # The table itself

    def create(self) -> bool:
        """Create the table, with on-demand capacity, and wait until it is there. False if it was."""
        with self.translated_errors():
            try:
                self.client.create_table(
                    TableName=self.name,
                    KeySchema=[
                        {"AttributeName": "pk", "KeyType": "HASH"},
                        {"AttributeName": "sk", "KeyType": "RANGE"},
                    ],
                    AttributeDefinitions=[
                        {"AttributeName": name, "AttributeType": "S"} for name in KEY_ATTRIBUTES
                    ],
                    BillingMode="PAY_PER_REQUEST",
                )
                created = True
            except ClientError as error:
                if code_of(error) != "ResourceInUseException":
                    raise
                created = False
            self.client.get_waiter("table_exists").wait(
                TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )
            self._enable_ttl()
            return created

    def _enable_ttl(self) -> None:
        described = self.client.describe_time_to_live(TableName=self.name)
        if described["TimeToLiveDescription"].get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            self.client.update_time_to_live(
                TableName=self.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
            )

    def check(self) -> None:
        """Raise UsageError unless the table is there, with the right keys, and lets us read, write and delete."""
        try:
            with self.translated_errors():
                table = self.client.describe_table(TableName=self.name).get("Table")
                if table is None:
                    raise foreign("no table in the reply")
                keys = [
                    each["AttributeName"]
                    for each in sorted(table["KeySchema"], key=lambda each: each["KeyType"])
                ]
                if tuple(keys) != KEY_ATTRIBUTES:
                    raise RefusalError(
                        f"The table {self.name} has the keys {', '.join(keys)}, and not pk and sk: set AGENTEXEC_DYNAMODB_TABLE to one that `agentexec migrate --state` has made."
                    )
                pk, sk = "ping", f"{random.getrandbits(64):016x}"
                self.put_new({**key(pk, sk), "ttl": expiry(60)})
                self.get(pk, sk)
                self.read_all([key(pk, sk)])
                list(self.query(pk, sk, sk))
                self.client.update_item(
                    TableName=self.name,
                    Key=key(pk, sk),
                    UpdateExpression="SET #name = :value",
                    ExpressionAttributeNames={"#name": "value"},
                    ExpressionAttributeValues={":value": {"N": "1"}},
                )
                self.delete_all([key(pk, sk)])
                self.client.delete_item(TableName=self.name, Key=key(pk, sk))
        except RefusalError as error:
            raise UsageError(str(error)) from error


def _new_client(config: Config) -> Any:
    """Return a client with AWS's own settings. Raises RefusalError if they are invalid."""
    try:
        # Of AWS's libraries this one alone does not know AWS_REGION, which AWS sets in containers.
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION") or None)
        client = session.client("dynamodb", config=config)
        endpoint = urlsplit(client.meta.endpoint_url)
        if endpoint.scheme not in ("http", "https") or endpoint.port == 0:
            raise ValueError("the endpoint is not the URL of an HTTP server")
    except ValueError as error:
        # Of the endpoint, or of a place that credentials come from.
        raise misconfigured(error) from error
    return client


def expiry(seconds: float) -> Item:
    """Return the value of `ttl` of an item that may be removed after these seconds."""
    return {"N": str(int(time.time() + seconds) + 1)}


def pause(failures: int) -> float:
    """Return the seconds to wait after failures in a row: a random part of a time that doubles, up to 0.4."""
    return random.uniform(0.0, min(0.4, 0.005 * 2.0 ** min(failures, 10)))  # noqa: S311 - no secret


def _batches(items: Sequence[Any], size: int) -> Generator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _tries() -> Generator[None]:
    """Yield for each try of a batch; raise UnavailableError when there was no end to them."""
    deadline, failures = time.monotonic() + BATCH_SECONDS, 0
    while True:
        yield
        failures += 1
        if time.monotonic() > deadline:
            raise UnavailableError("DynamoDB throttles: it left out a part of a batch several times.")
        time.sleep(pause(failures))
