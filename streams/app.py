"""The Faust app: raw records in, acks out. The only file that imports faust.

Inside this narrow envelope Faust is sound; outside it loses records (docs/guarantees.md): never
`take`, never an exception out of the agent, never an ack by Faust itself.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import faust
import faust.streams
from aiokafka.errors import IllegalStateError
from faust.auth import SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP, AppT, EventT, Message, StreamT
from mode.threads import ServiceThread, WorkerThread

from scheduler.adapters import kafka_member
from scheduler.adapters.kafka_member import METADATA_MAX_AGE_MS, NEVER_MS, heartbeat_ms
from scheduler.errors import PermanentError
from scheduler.kafka_servers import ENCRYPTED, WITH_LOGIN, KafkaServers
from scheduler.ports import SourceRecord
from scheduler.settings import Settings

COMMIT_INTERVAL_S = 0.5
"""How much is delivered twice after a crash, at most."""

FETCH_BYTES = 2 * 1024 * 1024
"""Of a partition at once. A record that is larger comes alone (KIP-74)."""

POLL_RECORDS = 1000

# Faust and aiokafka finish what they wait for before they take part in a rebalance, or before they
# ask for what they have been given in one. Each of these is a pause that a hand-over may cost.
FETCH_WAIT_MS = 250
"""How long a broker may keep a fetch that finds nothing."""

POLL_S = 0.25
"""How long Faust waits for what has been fetched."""

NO_PARTITION_S = 0.1
"""How often it looks whether there is a partition to read."""

STREAM_BUFFER = 1000
"""Records between Kafka and the pumps, of all topics and partitions."""

RECORDS_PER_TURN = 100
"""Records handed over before other tasks get their turn (some milliseconds)."""

# What these classes say is Faust's, though they are here.
_LOG = logging.getLogger("faust.app")

Delivery = Callable[[SourceRecord, int, "Token"], Awaitable[bool]]


class Token:
    """What acks one record."""

    __slots__ = ("_event", "_stream")

    def __init__(self, stream: StreamT[Any], event: EventT[Any]) -> None:
        self._stream = stream
        self._event = event

    async def ack(self) -> None:
        """The record has been applied: its offset may be committed."""
        await self._stream.ack(self._event)


class _RawSchema(faust.Schema):  # type: ignore[type-arg]
    """Bytes as they are. A decode error would be acked by Faust before our code saw the record."""

    def loads_key(self, app: AppT, message: Message, **_: Any) -> Any:
        return message.key

    def loads_value(self, app: AppT, message: Message, **_: Any) -> Any:
        return message.value


class _Thread(WorkerThread):
    """Ends with the process: Faust's own would keep it alive when it does not end by itself."""

    def __init__(self, service: ServiceThread, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True


class _ConsumerThread(AIOKafkaConsumerThread):
    Worker = _Thread
    logger = _LOG

    def _create_worker_consumer(self, transport: Any) -> Any:
        made = super()._create_worker_consumer(transport)
        made._fetch_max_wait_ms = FETCH_WAIT_MS  # Faust has 1,500, and no setting for it
        return made

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # They may have been given away since they were collected in the other thread, and aiokafka
        # takes an empty commit for a mistake, of which Faust dies.
        if self.assignment().isdisjoint(offsets):
            return False
        return await super()._commit(offsets)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        # Faust polls into a rebalance, throws away what came, and goes back to what is committed.
        # aiokafka goes nowhere where nothing is, and those records were lost to this assignment.
        try:
            committed = await super().seek_to_committed()
        except AssertionError as error:
            if self.assignment():
                raise
            # Faust dies of aiokafka's assertion, and knows what to do with this.
            raise IllegalStateError("all partitions have been given away") from error
        if unread := [tp for tp, offset in committed.items() if not offset]:
            with contextlib.suppress(IllegalStateError):  # given away meanwhile
                await self.seek_to_beginning(*unread)
        return committed


class _Consumer(Consumer):
    """A consumer that commits over gaps in the offsets: each transaction leaves one, its marker."""

    logger = _LOG

    def _new_consumer_thread(self) -> "_ConsumerThread":
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # Faust hands over the offset of the record behind the gap, and counts it in. Acked too, it
        # then stands there twice, which ends the run of offsets that can be committed: one gap in
        # each interval, however many there were.
        await super()._add_gap(tp, offset_from, offset_to - 1)

    async def verify_all_partitions_active(self) -> None:
        """Nothing. Faust's own watch takes a partition where nothing happens for a stuck one, and
        ends the worker when it asks aiokafka for a position that is just being looked up. Ours asks
        whether a record waits (streams.stall)."""

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # Faust stops the flow when it loses partitions, and a member that had none goes on: what is
        # delivered before all of this is done has no stream to go to, of which the worker dies.
        self.stop_flow()
        self.app.flow_control.suspend()
        await super().on_partitions_assigned(assigned, generation_id)

    def getmany(self, timeout: float) -> "AsyncIterator[tuple[TP, Message]]":
        return super().getmany(min(timeout, POLL_S))

    async def wait_first(self, *awaited: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109
        # Asked for each record, this has four tasks to be started and a few turns of the loop to be
        # waited for, only so that a record can be given up that waits where the stream is full.
        if len(awaited) == 2 and self._has_room():
            taken, suspended = awaited
            suspended.close()
            await taken
            return None
        return await super().wait_first(*awaited, timeout=timeout)

    def _has_room(self) -> bool:
        """Whether the next record goes into the stream without having to wait."""
        if not (self.flow_active and self.app.flow_control.is_active()):
            return False
        return not any(channel.queue.full() for channel in self.app.topics)

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109
        while self.flow_active and not self.should_stop and not self._get_active_partitions():
            await self.sleep(NO_PARTITION_S)
        return await super()._wait_next_records(timeout)


class _Recovery(Recovery):
    """What lets the records flow again behind a rebalance. Its name is from tables."""

    logger = _LOG

    _of_rebalance = 0

    async def on_rebalance(self, *arguments: Any, **options: Any) -> None:
        self._of_rebalance = self.app.rebalancing_count
        await super().on_rebalance(*arguments, **options)

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109
        # Without a time limit: Faust takes the end of one for that of the service, which ends for
        # good then, and nothing would flow again. The next rebalance ends the wait as well.
        await super()._wait(coro)
        if self.app.rebalancing_count != self._of_rebalance:
            # It has begun already, and records must not flow into it.
            raise RebalanceAgain


class _NoTables(TableManager):
    """Faust gives tables a second to register before it joins the group. There are none, and a
    worker that comes back would come back a second later."""

    logger = _LOG

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = _Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class _App(faust.App):
    """An app that leaves no files behind: there are no tables here that would need a folder."""

    logger = _LOG

    def _create_directories(self) -> None: ...

    def _on_rebalance_when_stopped(self) -> None:
        """Nothing: what stops us leaves the group (`leave`), and from the thread that it is of."""


def check_faust() -> None:
    """Raises `PermanentError` when Faust came without its compiled part."""
    # The pure-Python iterator acks stale records after a rebalance: they would be lost.
    if getattr(faust.streams, "_CStreamIterator", None) is None:
        raise PermanentError(
            "this faust-streaming has no compiled stream iterator, and without it records can be"
            " lost: install its wheel for this platform, and unset NO_CYTHON"
        )


class _Rest:
    """In the place of the `asyncio.sleep` by which a stream has a turn of the loop go by before
    each record. With everything at work these are fewer turns a second than records could be
    applied."""

    def __init__(self) -> None:
        self._records = 0

    async def __call__(self, seconds: float) -> None:
        self._records += 1
        if self._records % RECORDS_PER_TURN == 0:
            await asyncio.sleep(seconds)


def _hurry_streams() -> None:
    """Have the streams of this process take many records in one turn of the loop (`check_faust`
    first)."""
    compiled = cast(Any, faust.streams)._CStreamIterator
    cast(Any, sys.modules[compiled.__module__]).sleep = _Rest()


def _credentials(kafka: KafkaServers) -> SSLCredentials | SASLCredentials | None:
    if kafka.protocol in WITH_LOGIN:
        return SASLCredentials(
            username=kafka.username,
            password=kafka.password,
            mechanism=kafka.mechanism,
            ssl_context=kafka.tls,
        )
    return SSLCredentials(kafka.tls) if kafka.protocol in ENCRYPTED else None


def build_app(
    settings: Settings,
    topics: Sequence[str],
    *,
    deliver: Delivery,
    on_assigned: Callable[[Mapping[str, frozenset[int]], int], Awaitable[None]],
    on_revoked: Callable[[int], Awaitable[None]],
    on_death: Callable[[BaseException], None],
) -> "faust.App":
    """An app with one agent, on all of `topics`.

    `deliver` gets each record, the group's generation it was fetched in, and its token. The
    callbacks get the partitions of each topic and the generation; `on_death` what ended the agent.
    To be called in the loop that will run the app.
    """
    _hurry_streams()
    session_s = settings.session_timeout_ms / 1000
    app = _App(
        settings.worker_group,
        # Faust would let BROKER_URL and a hundred others in the environment win over what is here.
        env={},
        broker=";".join(f"kafka://{each}" for each in settings.kafka.bootstrap.split(",")),
        broker_credentials=_credentials(settings.kafka),
        store="memory://",
        processing_guarantee="at_least_once",
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=heartbeat_ms(settings.session_timeout_ms) / 1000,
        broker_rebalance_timeout=session_s,
        broker_request_timeout=max(40.0, 2 * session_s),
        broker_max_poll_interval=NEVER_MS / 1000,
        broker_max_poll_records=POLL_RECORDS,
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_group_instance_id=settings.instance_of("worker"),
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=STREAM_BUFFER,
        # With a store away there is no end to the waiting; what is not acked comes again.
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        TableManager=_NoTables,
        web_enabled=False,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )

    app.transport.Consumer = _Consumer  # type: ignore[misc]
    # One channel for all of them: Faust keeps offsets and acks for each topic and partition, and
    # more channels would not be more independent, since one task fills them.
    channel = app.topic(*topics, schema=_RawSchema(), value_type=None, key_type=None)
    at_first: set[TP] = set()

    async def ingest(stream: Any) -> None:
        try:
            async for event in stream.noack().events():
                message = event.message
                # Faust takes no notice of a gap behind offset 0, and would never commit over it.
                if message.offset == 0:
                    at_first.add(message.tp)
                elif at_first and message.tp in at_first:
                    at_first.discard(message.tp)
                    await cast(_Consumer, app.consumer)._add_gap(message.tp, 1, message.offset)
                record = SourceRecord(
                    message.topic,
                    message.partition,
                    message.offset,
                    message.key,
                    message.value,
                    tuple(message.headers or ()),
                )
                await deliver(record, message.generation_id, Token(stream, event))
            if not app.should_stop:
                raise RuntimeError("the stream has ended by itself")
        except Exception as error:
            # It must not leave the agent: Faust would ack the record in hand, and go on.
            on_death(error)
            raise

    app.agent(channel, name="inputs", concurrency=1)(ingest)

    # Before the first record of the new generation is fetched, and after its number is known.
    async def complete(*_: Any, **__: Any) -> None:
        assignment = app.consumer.assignment()
        ours = {
            topic: frozenset(tp.partition for tp in assignment if tp.topic == topic)
            for topic in topics
        }
        await on_assigned(ours, app.consumer_generation_id)

    async def revoked(*_: Any, **__: Any) -> None:
        await on_revoked(app.consumer_generation_id)

    app.on_rebalance_complete.connect(complete, weak=False)
    app.on_partitions_revoked.connect(revoked, weak=False)
    return app


async def leave(app: "faust.App") -> None:
    """Commit what is acked and leave the group, which others must not wait for: stopping the rest
    of the app takes a second. Unbounded: give it a time limit.

    To be called when nothing is acked any more.
    """
    if app._consumer is None:
        return
    thread = cast(_Consumer, app._consumer)._thread
    kafka = _kafka(app)
    if kafka is None:
        return
    await app._consumer.commit()
    await asyncio.wrap_future(
        asyncio.run_coroutine_threadsafe(kafka_member.leave(kafka), thread.thread_loop)
    )


def check_alive(app: "faust.App") -> None:
    """Raises `InstanceReplacedError` when another worker has joined under our instance id, and what
    has ended a task without which the app gets no records, or no partitions.

    To be asked now and then: Faust takes no notice, and would wait for ever.
    """
    if (kafka := _kafka(app)) is None:
        return
    kafka_member.check_alive(kafka)
    # Faust polls past what would raise it. There is no coordinator before it is connected.
    coordinator = kafka._coordinator
    if coordinator is not None and (error := coordinator._pending_exception) is not None:
        raise error


def check_replaced(app: "faust.App") -> None:
    """The first half of `check_alive`."""
    kafka_member.check_replaced(_kafka(app))


def generation(app: "faust.App") -> int | None:
    """The generation of the group whose partitions are ours; None while there is none."""
    kafka = _kafka(app)
    if kafka is None or kafka_member.rejoining(kafka):
        return None
    found: int = kafka._coordinator.generation
    return found if found >= 0 else None


def _kafka(app: "faust.App") -> Any:
    """aiokafka's consumer, which belongs to the thread; None where there is none yet."""
    return None if app._consumer is None else cast(_Consumer, app._consumer)._thread._consumer


def press(app: "faust.App", topic: str, partition: int, on: bool) -> None:
    """Stop (or go on) fetching one partition of a topic, without touching what has been fetched.

    Not `pause_partitions`: that throws away, unread, what is in a poll's hand already.
    """
    tp = TP(topic, partition)
    if on:
        app.consumer.on_buffer_full(tp)
    elif tp in app.consumer.assignment():
        app.consumer.on_buffer_drop(tp)
