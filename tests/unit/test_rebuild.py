"""What a rebuilt wheel knows of the life before."""

from scheduler.activity import PlannedActivity
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.policy import OverduePolicy
from schemas.ids import activity_id
from schemas.times import millis
from tests.property.shard_world import SHARD, ShardWorld

POSTS = "post-detected"


class World(ShardWorld):
    """Without accidents but those of the test."""

    def __init__(self) -> None:
        super().__init__(
            0,
            inputs=(POSTS,),
            await_ms=3_600_000,
            death=0.0,
            policies=[OverduePolicy("postpone", 100)],
        )
        self.wheel = MemoryWheel(lambda: self.now_ms)
        self.calm = True

    async def plan(self, offset: int, due_ms: int) -> None:
        ids = ("pod", "post", f"member-{offset}")
        row = PlannedActivity(activity_id(*ids, "like"), *ids, "like", due_ms, offset)
        await self.record.apply_plan(POSTS, SHARD, offset - 1, offset, [row])


async def test_a_backlog_is_as_long_as_the_outage_however_often_the_wheel_was_lost() -> None:
    world = World()
    last_ms = world.now_ms
    await world.plan(0, last_ms)
    owner = world.owner()
    await owner.take()
    assert (await owner.run_once()).timers
    await world.plan(1, last_ms - 5000)  # later than the outage: its event was
    await world.plan(2, last_ms + 500)
    world.now_ms += 60_000
    for _ in range(2):
        world.wheel.lose()
        owner = world.owner()
        await owner.take()
        world.now_ms += 1000
    await owner.run_once()
    assert [each.shift_ms for each in world.kafka.reports] == [world.now_ms - last_ms]
    claimed_at = [each.claimed_at for each in world.kafka.cursors]
    assert [each and millis(each) - last_ms for each in claimed_at] == [None, 0, 0, 0, 62_000]
