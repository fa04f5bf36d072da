"""How each thing goes wrong in a world, and how all of it is well again. One method a word of plan.FAULTS."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from broker.protocol import client
from broker.protocol.client import Part
from broker.protocol.records import JobState
from tests.core.simulation.net import Weather
from tests.core.simulation.plan import JOBS, id_of

if TYPE_CHECKING:
    from tests.core.simulation.model_worker import Comfy, ModelWorker
    from tests.core.simulation.world import World

DAY_MS = 86_400_000


class Faults:
    def __init__(self, world: World) -> None:
        self.world = world
        #: What a fault has left behind that time alone would mend too late.
        self._mends: list[Callable[[], None]] = []

    def strike(self, what: str, draw: int) -> None:
        getattr(self, what)(random.Random(draw))

    def heal(self) -> None:
        self.calm(random.Random(0))
        for mend in self._mends:
            mend()
        world = self.world
        world.broker_paused_until_ms = 0
        world.late_ready_ms.clear()
        for present in [*world.workers, *world.twins]:
            present.paused_until_ms = 0
            present.stuck = False
        for twin in world.twins:
            twin.alive = False
        world.twins.clear()

    def _later(self, wait_ms: int, mend: Callable[[], None]) -> None:
        self._mends.append(mend)
        self.world.clock.after(wait_ms, mend)

    def _for_a_while(self, whose: World | Comfy | ModelWorker, what: str, wait_ms: int) -> None:
        """That is true of it until then."""
        setattr(whose, what, True)
        self._later(wait_ms, partial(setattr, whose, what, False))

    # ---- the broker

    def crash_broker(self, rng: random.Random) -> None:
        self.world.crash_broker()

    def crash_again(self, rng: random.Random) -> None:
        """Twice within a lease, on the same data."""
        world, away_ms = self.world, rng.randint(100, 2_000)
        world.crash_broker(away_ms)
        world.clock.after(away_ms + rng.randint(1, 3_000), world.crash_broker)

    def lose_broker(self, rng: random.Random) -> None:
        self.world.crash_broker(rng.randint(30_000, 120_000))

    def pause_broker(self, rng: random.Random) -> None:
        world = self.world
        world.broker_paused_until_ms = world.clock.now_ms + rng.randint(500, 30_000)

    def fail_commit(self, rng: random.Random) -> None:
        self.world.next_commit_fails = True

    def slow_disk(self, rng: random.Random) -> None:
        self.world.commit_ms = rng.choice([300, 1_000, 5_000])
        self._later(rng.randint(2_000, 30_000), partial(setattr, self.world, "commit_ms", 0))

    def full_disk(self, rng: random.Random) -> None:
        self._for_a_while(self.world, "disk_full", rng.randint(1_000, 20_000))

    def jump_clock(self, rng: random.Random) -> None:
        self.world.utc_ahead_ms += rng.choice([-DAY_MS, -3_600_000, 3_600_000, DAY_MS])

    # ---- workers and their ComfyUIs

    def kill_worker(self, rng: random.Random) -> None:
        rng.choice(self.world.workers).alive = False

    def kill_workers(self, rng: random.Random) -> None:
        """All of them announce themselves again within the same 100 ms."""
        for present in self.world.workers:
            present.alive = False

    def kill_comfy(self, rng: random.Random) -> None:
        """The container dies with the worker beside it: the prompts are gone too. The worker may be back before it."""
        index = rng.randrange(len(self.world.workers))
        self.world.comfys[index].rises_ms = self.world.clock.now_ms + rng.choice((0, 3_000, 20_000))
        self.world.workers[index].alive = False
        self.world.comfys[index].prompts.clear()

    def restart_comfy(self, rng: random.Random) -> None:
        rng.choice(self.world.workers).lose_prompts()

    def clear_comfy(self, rng: random.Random) -> None:
        """What runs goes on; what waits, and what is done and was not fetched, is gone, and nobody says so."""
        rng.choice(self.world.comfys).clear()

    def silence_comfy(self, rng: random.Random) -> None:
        self._for_a_while(rng.choice(self.world.comfys), "silent", rng.randint(5_000, 60_000))

    def run_out(self, rng: random.Random) -> None:
        rng.choice(self.world.comfys).runs_out = True

    def poison_job(self, rng: random.Random) -> None:
        """It stays so: the fleet has to get rid of it."""
        self.world.deadly.setdefault(id_of(rng.randrange(JOBS)), 0)

    def poison_comfy(self, rng: random.Random) -> None:
        self._for_a_while(rng.choice(self.world.comfys), "poisoned", rng.randint(2_000, 30_000))

    def remove_worker(self, rng: random.Random) -> None:
        """A container is taken away for good; the first one always stays."""
        index = rng.randrange(1, len(self.world.workers))
        self.world.removed.add(index)
        self.world.workers[index].alive = False

    def pause_worker(self, rng: random.Random) -> None:
        victim = rng.choice(self.world.workers)
        victim.paused_until_ms = self.world.clock.now_ms + rng.randint(500, 25_000)

    def stick_worker(self, rng: random.Random) -> None:
        self._for_a_while(rng.choice(self.world.workers), "stuck", rng.randint(10_000, 120_000))

    def change_worker(self, rng: random.Random) -> None:
        index = rng.randrange(len(self.world.workers))
        world, comfy = self.world, self.world.comfys[index]
        comfy.nodes = ("M",)
        world.workers[index].alive = False

        def mend() -> None:
            if comfy.nodes != ("N",):
                comfy.nodes = ("N",)
                world.workers[index].alive = False

        self._later(rng.randint(2_000, 30_000), mend)

    def add_twin(self, rng: random.Random) -> None:
        self.world.add_twin(rng.randrange(len(self.world.workers)))

    # ---- people

    def drain_worker(self, rng: random.Random) -> None:
        name = rng.choice(self.world.workers).name
        self.world.ask(client.DrainWorker(request_id="d" * 32, worker=name))

    def pause_fleet(self, rng: random.Random) -> None:
        world = self.world
        world.ask(client.Pause(request_id="e" * 32, worker=""))

        def mend() -> None:
            world.want_resumed = True

        self._later(rng.randint(1_000, 15_000), mend)

    def move_job(self, rng: random.Random) -> None:
        """The next that waits; pinned only to the worker that always stays."""
        live = self.world.turn.fleet.jobs.live
        waiting = sorted(job_id for job_id, job in live.items() if job.record.state is JobState.QUEUED)
        if not waiting:
            if not self.world.healed:
                self.world.clock.after(100, lambda: self.move_job(rng))
            return
        which = rng.choice(waiting)
        if rng.random() < 0.5:
            self.world.ask(client.Reorder(request_id="b" * 32, job_id=which, priority=rng.randint(-9, 9)))
        else:
            self.world.ask(client.Pin(request_id="b" * 32, job_id=which, worker=rng.choice(["gpu-0", ""])))

    def cancel(self, rng: random.Random) -> None:
        self.world.ask(client.Cancel(request_id="c" * 32, job_id=id_of(rng.randrange(JOBS))))

    def delete(self, rng: random.Random) -> None:
        self.world.delete(id_of(rng.randrange(JOBS)))

    def repeat(self, rng: random.Random) -> None:
        """Under a job id of its own, as after an answer that never came."""
        self.world.ask(self.world.request(rng.randrange(JOBS), again=500 + rng.randrange(100)))

    def burst(self, rng: random.Random) -> None:
        """A group, repeated until it is answered."""
        first = 1_000 + 10 * rng.randrange(1_000)
        parts = tuple(
            Part(job_id=id_of(first + index), workflow_bytes=2, form_bytes=0) for index in range(rng.randint(2, 5))
        )
        self.world.submit(first + 9, parts)

    # ---- the network

    def slow_link(self, rng: random.Random) -> None:
        slow = self.world.net.weather.slow
        slow[rng.choice(self.world.workers).name] = rng.choice([(1, 400), (2_000, 2_200)])

    def lose_beats(self, rng: random.Random) -> None:
        self._lose(self.world.beatless, rng)

    def late_ready(self, rng: random.Random) -> None:
        self.world.late_ready_ms[rng.choice(self.world.workers).name] = rng.randint(500, 8_000)

    def lose_uploads(self, rng: random.Random) -> None:
        self._lose(self.world.fileless, rng)

    def _lose(self, victims: set[str], rng: random.Random) -> None:
        name = rng.choice(self.world.workers).name
        victims.add(name)
        self._later(rng.randint(2_000, 30_000), lambda: victims.discard(name))

    def storm(self, rng: random.Random) -> None:
        weather = self.world.net.weather
        weather.loss = rng.choice([0.01, 0.05, 0.2])
        weather.doubled = rng.choice([0.0, 0.1])
        weather.late = rng.choice([0.0, 0.1, 0.5])
        weather.late_ms = rng.choice([50, 500, 4_000])
        self.world.reordered |= weather.late > 0

    def calm(self, rng: random.Random) -> None:
        self.world.net.weather = Weather()

    def partition(self, rng: random.Random) -> None:
        self._cut(rng.choice(self.world.workers).name)

    def one_way(self, rng: random.Random) -> None:
        name = rng.choice(self.world.workers).name
        self.world.net.weather.cut.add(rng.choice([(name, "broker"), ("broker", name)]))

    def flap(self, rng: random.Random) -> None:
        name, at_ms = rng.choice(self.world.workers).name, 0
        for _ in range(rng.randint(2, 6)):
            self.world.clock.after(at_ms, lambda: self._cut(name))
            at_ms += rng.randint(500, 15_000)
            self.world.clock.after(at_ms, lambda: self._join(name))
            at_ms += rng.randint(500, 5_000)

    def swizzle(self, rng: random.Random) -> None:
        names = [present.name for present in self.world.workers]
        for cut in (self._cut, self._join):
            rng.shuffle(names)
            for place, name in enumerate(names):
                wait_ms = (place + (len(names) if cut == self._join else 0)) * rng.randint(100, 5_000)
                self.world.clock.after(wait_ms, partial(cut, name))

    def _cut(self, name: str) -> None:
        if not self.world.healed:
            self.world.net.weather.cut |= {(name, "broker"), ("broker", name)}

    def _join(self, name: str) -> None:
        self.world.net.weather.cut -= {(name, "broker"), ("broker", name)}
