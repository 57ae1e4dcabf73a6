"""What a difference really is depends on whether the attempt has ever been sent: Kafka knows."""

from scheduler.difference import Kind
from scheduler.findings import Findings
from scheduler.mentions import dispatched
from scheduler.second_look import Stores

SLACK_MS = 3_600_000
"""How far the clocks of PostgreSQL and of dispatchers may be apart: reading begins so much before
the first of the rows was made."""

NOT_KEPT = "as far as engagement-status is kept"


async def sort_by_history(shard: int, stores: Stores, findings: Findings) -> None:
    """Give what was found its right name. Reads `engagement-status` from before the oldest of the
    activities in question on, once, and nothing where there is none."""
    if not findings.history:
        return
    topic = stores.topics.engagement_status
    oldest_ms = min(row.created_at_ms for _, row in findings.history.values()) - SLACK_MS
    begin, end = (await stores.log.spans([topic], [shard]))[topic][shard]
    start = max(begin, await stores.log.offset_at(topic, shard, max(0, oldest_ms)))
    sent = await dispatched(stores.log, topic, shard, start, end, findings.history.keys())
    # Retention may have removed what would tell.
    note = NOT_KEPT if start == begin > 0 else ""
    for name, (kind, row) in list(findings.history.items()):
        known = (name, row.attempt) in sent.attempts
        if known and kind is Kind.MISSING_TIMER:
            findings.turn(name, Kind.SENT_BEFORE, "", sent=True, attempt=row.attempt)
        elif not known and kind is Kind.SENT_BEFORE and not note:
            findings.turn(name, Kind.MISSING_TIMER, "", sent=False, attempt=row.attempt)
        elif not known and (
            kind is Kind.TIMER_OF_SENT_ROW or (kind is Kind.MISSING_DEADLINE and not note)
        ):
            findings.turn(name, Kind.NEVER_SENT, note, sent=False, attempt=row.attempt)
