"""What the servers take at best, here and now: no engine is faster than what it stands on."""

import time
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from bench.harness import Bench
from bench.load import COLUMNS, World, far_away, rows
from bench.results import Figure
from bench.site import Site
from schemas.codec import fired

BATCH_BYTES = 900_000
TRANSACTIONS = 100


async def run(bench: Bench) -> Sequence[Figure]:
    """COPY into the rows' table, batches of records into a topic, transactions of one record."""
    count = bench.of(200_000, 40_000)
    async with bench.site() as site:
        measured = (
            ("limit: COPY of rows", "rows/s", partial(_copy, site, count)),
            ("limit: records in batches", "records/s", partial(_produce, site, count)),
            ("limit: transactions, one after the other", "1/s", partial(_commit, site)),
        )
        return [
            Figure(name=name, unit=unit, values=await bench.each_repeat(name, once))
            for name, unit, once in measured
        ]


async def _copy(site: Site, count: int) -> float:
    shards = World(time.time_ns()).timers(count, len(site.shards), *far_away())
    made = list(rows(shards))
    connection = await asyncpg.connect(site.settings.postgres_dsn)
    try:
        began = time.perf_counter()
        await connection.copy_records_to_table("pod_activities", records=made, columns=COLUMNS)
        return len(made) / (time.perf_counter() - began)
    finally:
        await connection.close()


async def _produce(site: Site, count: int) -> float:
    """Records as large as an engagement, encoded beforehand."""
    (timer, *_), *_ = World().timers(1, 1, *far_away()).values()
    value = fired(
        *(timer.activity_id, timer.pod_id, timer.post_id, timer.member_id),
        timer.engagement_type,
        *(1, timer.due_ms, timer.due_ms),
    )[0]
    key = timer.post_id.encode()
    producer = AIOKafkaProducer(
        bootstrap_servers=site.settings.kafka_bootstrap,
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
    )
    async with producer:
        batches = []
        sent = 0
        while sent < count:
            batch = producer.create_batch()
            while sent < count and batch.append(timestamp=None, key=key, value=value) is not None:
                sent += 1
            batch.close()
            batches.append(batch)
        topic = site.settings.topics.execute_engagement
        began = time.perf_counter()
        waiting = [
            await producer.send_batch(batch, topic, partition=number % len(site.shards))
            for number, batch in enumerate(batches)
        ]
        for each in waiting:
            await each
        return count / (time.perf_counter() - began)


async def _commit(site: Site) -> float:
    producer = AIOKafkaProducer(
        bootstrap_servers=site.settings.kafka_bootstrap, transactional_id=f"limit-{uuid4()}"
    )
    async with producer:
        began = time.perf_counter()
        for _ in range(TRANSACTIONS):
            async with producer.transaction():
                await producer.send(site.settings.topics.execute_engagement, b"{}", partition=0)
        return TRANSACTIONS / (time.perf_counter() - began)
