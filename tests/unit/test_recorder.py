"""The past of both arms: one writer, no gap and nothing twice, whoever leads and whatever the store does meanwhile."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from redis.exceptions import RedisError

from alerts.signals import ArmSignals, Signals
from flags.latch import Latch
from flags.ramp import Ramp, Rollback
from flags.record import RampRecord, with_rollback
from flags.store import EmbeddedValkey, connect
from proxy.dashboard.recorder import Incident, Recorder, points_of
from proxy.dashboard.tiers import FINEST, TIERS, incident_key, keys_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis.asyncio import Redis

    from alerts.trend import Point

PREFIX = "p:f"
SIGNALS = f"{{{PREFIX}}}:signals"
RECORD = RampRecord(ramp=Ramp(rollout_id="r", group_id="g", share_percent=25), version=3)


class Lease:
    def __init__(self) -> None:
        self.is_leader = True


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Redis]:
    server = EmbeddedValkey(tmp_path)
    await server.start()
    async with connect(server.url, 5.0) as client:
        yield client
    await server.close()


class Replica:
    """One that may lead, driven second by second."""

    def __init__(self, store: Redis, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.lease = Lease()
        self.latch = Latch()
        self.latch.take(RECORD)
        self.recorder = Recorder(PREFIX, self.lease, self.latch, lambda: None, clock=clock)

    async def exchange(self, seconds: float = 1.0, times: int = 1) -> None:
        for _ in range(times):
            self.clock.now += seconds
            async with self.store.pipeline(transaction=False) as pipe:
                self.recorder.ask(pipe)
                answers = await pipe.execute()
            self.recorder.take(answers)


async def tell(store: Redis, requests: int, name: str = "a", candidate_at: float = 0.0) -> None:
    arms = (ArmSignals(requests=requests), ArmSignals())
    text = msgspec.json.encode(Signals(at=store_time, arms=arms, candidate_at=candidate_at)).decode()
    await _done(store.hset(SIGNALS, name, text))


store_time = 1_000_000.0


async def _done(answer: Any) -> Any:
    return await answer


async def points(store: Redis, tier: str = FINEST.name) -> list[Point]:
    return points_of(await _done(store.xrevrange(f"{keys_of(PREFIX)[0]}:{tier}")))


async def test_each_period_is_one_point_of_what_was_added_in_it(store: Redis) -> None:
    replica = Replica(store, Clock())
    await tell(store, 10)
    await replica.exchange(times=6)
    await tell(store, 17)
    await replica.exchange(times=12)
    found = await points(store)
    assert sum(each.arms[0].requests for each in found) == 7
    assert [each.share_percent for each in found] == [25] * len(found)
    assert [round(b.at - a.at) for a, b in pairwise(found)] == [5] * (len(found) - 1)


async def test_a_new_leader_goes_on_where_the_old_one_ended(store: Redis) -> None:
    clock = Clock()
    first, second = Replica(store, clock), Replica(store, clock)
    second.lease.is_leader = False
    await tell(store, 10)
    await first.exchange(times=7)
    first.lease.is_leader, second.lease.is_leader = False, True
    await tell(store, 30)
    await second.exchange(times=10)
    assert sum(each.arms[0].requests for each in await points(store)) == 20


async def test_two_leaders_at_once_write_each_point_once(store: Redis) -> None:
    clock = Clock()
    both = [Replica(store, clock), Replica(store, clock)]
    for second in range(40):
        await tell(store, 10 * second)
        for each in both:
            await each.exchange(seconds=0.5)
    found = await points(store)
    assert sum(each.arms[0].requests for each in found) <= 390
    assert len({each.at for each in found}) == len(found)
    assert len(found) >= 5


async def test_an_answer_that_was_lost_is_not_written_twice(store: Redis) -> None:
    replica = Replica(store, Clock())
    await tell(store, 10)
    await replica.exchange(times=6)
    await tell(store, 20)
    for lost in range(12):
        replica.clock.now += 1
        async with store.pipeline(transaction=False) as pipe:
            replica.recorder.ask(pipe)
            answers = await pipe.execute()
        if lost % 3:  # every third answer does not arrive
            replica.recorder.take(answers)
    await replica.exchange(times=12)
    assert sum(each.arms[0].requests for each in await points(store)) == 10


async def test_every_series_is_kept_and_none_grows_for_ever(store: Redis) -> None:
    replica = Replica(store, Clock())
    await replica.exchange(seconds=7200, times=3)
    for n in range(FINEST.points + 150):
        await tell(store, n)
        await replica.exchange(seconds=5)
    counts = {tier.name: len(await points(store, tier.name)) for tier in TIERS}
    assert FINEST.points <= counts["seconds"] < FINEST.points + 150
    assert counts["minutes"] >= 40
    assert counts["hours"] >= 4
    assert all(counts.values())


async def test_what_cannot_be_read_costs_its_own_point_only(store: Redis) -> None:
    replica = Replica(store, Clock())
    await _done(store.hset(SIGNALS, "broken", "{"))
    await _done(store.hset(keys_of(PREFIX)[1], FINEST.name, "no cursor"))
    await tell(store, 10)
    await replica.exchange(times=8)
    await tell(store, 15)
    await replica.exchange(times=8)
    await _done(store.xadd(f"{keys_of(PREFIX)[0]}:{FINEST.name}", {"point": "{"}))
    await _done(store.xadd(f"{keys_of(PREFIX)[0]}:{FINEST.name}", {"other": "1"}))
    assert sum(each.arms[0].requests for each in await points(store)) == 5


async def test_what_was_around_a_rollback_is_kept_with_the_last_candidate_request(store: Redis) -> None:
    replica = Replica(store, Clock())
    await tell(store, 10)
    await replica.exchange(times=12)
    rollback = Rollback(rollback_id="abc", at=replica.clock.now, actor="guard", reason="late", from_share_percent=25)
    replica.latch.take(with_rollback(RECORD, rollback, rollback.at))
    await tell(store, 12, candidate_at=rollback.at - 0.25)
    await replica.exchange(times=12)
    kept = msgspec.json.decode(await _done(store.get(incident_key(PREFIX, "abc"))), type=Incident)
    assert (kept.rollback_id, kept.candidate_at) == ("abc", rollback.at - 0.25)
    assert len(kept.points) >= 2
    assert 0 < await _done(store.ttl(incident_key(PREFIX, "abc"))) <= 90 * 86400


async def test_who_does_not_lead_asks_nothing(store: Redis) -> None:
    replica = Replica(store, Clock())
    replica.lease.is_leader = False
    async with store.pipeline(transaction=False) as pipe:
        replica.recorder.ask(pipe)
        assert len(pipe) == 0


async def test_a_clock_that_jumps_back_stops_nothing(store: Redis) -> None:
    replica = Replica(store, Clock())
    await tell(store, 1)
    await replica.exchange(times=8)
    replica.clock.now -= 3600
    try:
        await replica.exchange(times=8)
    except RedisError as exc:  # pragma: no cover - what must not be
        pytest.fail(str(exc))
