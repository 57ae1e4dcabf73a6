"""What members with a daily cap have planned already, as the record knows it."""

from msgspec.structs import replace

from scheduler.controls import Orders
from scheduler.planner import DAY_MS
from scheduler.ports import Record


async def with_times(record: Record, orders: Orders, since_ms: int) -> Orders:
    """`orders`, just read from `record`, with what falls due of their members who have a cap, as
    far as it counts for who plans from `since_ms` on.

    Read after how many plans there were: those that come meanwhile are refused.
    """
    if not orders.caps:
        return orders
    times = await record.member_times(list(orders.caps), since_ms - DAY_MS)
    return replace(orders, times=times)
