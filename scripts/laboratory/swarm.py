"""SwarmUI: two usages a backend, and models loaded by pressure (src/Backends/BackendHandler.cs).

TryFind: a request takes a backend with a free usage that has its model loaded, the least used first, ties in the order
of the list. While there is none it presses for its model, and LoadHighestPressureNow lets one backend load the model
with the highest count * 10 + age in seconds: at once when only one backend has room, else when the pressure is older
than 1.5 s; an unused backend if there is one, of these the one released longest ago. The backend takes no more work,
finishes what it has (looked at each 100 ms) and runs a tiny picture; one load a model at a time. Requests are looked
through whenever one comes or a backend is released, and each second. Speed, memory and load of a card play no part.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections import OrderedDict, defaultdict

from scripts.laboratory.arena import Arena
from scripts.laboratory.baselines import Baseline
from scripts.laboratory.comfy import Comfy, Prompt, picture
from scripts.laboratory.traffic import Job, Model, units

#: MaxUsages: 1 + OverQueue, whose default is 1.
USAGES = 2
PRESSURE_MS = 1_500
WAKE_MS = 1_000
DRAIN_LOOK_MS = 100
#: The picture of 256 x 256 that loads a model.
TINY = units(256 * 256, 1)
#: A model, and the memory its use takes.
Want = tuple[Model, int]


@dataclasses.dataclass(slots=True)
class Pressure:
    first_ms: int
    count: int = 0
    loading: bool = False


@dataclasses.dataclass(slots=True)
class Backend:
    comfy: Comfy
    usages: int = 0
    loaded: Model | None = None
    #: Takes no work until it has loaded a model.
    reserved: bool = False
    released_ms: int = 0


class Swarm(Baseline):
    """Requests that name their model."""

    def begin(self, arena: Arena) -> None:
        super().begin(arena)
        self.backends = [Backend(comfy) for comfy in self.cards]
        #: What is wanted -> requests for it, oldest first. Those for one thing hear one answer.
        self.waiting: dict[Want, OrderedDict[int, Job]] = {}
        self.pressures: dict[Model, Pressure] = {}
        #: Jobs that are counted in one.
        self._pressed: set[int] = set()
        #: Loaded model -> (usages, place in the list) of backends that had room; what is outdated is skipped.
        self.ready: dict[Model | None, list[tuple[int, int]]] = defaultdict(list)
        for number in range(len(self.backends)):
            self._room(number)
        self._asked = False
        self._every_second()

    def submitted(self, job: Job) -> None:
        self.waiting.setdefault((job.models[0], job.vram_bytes), OrderedDict())[job.number] = job
        self._signal()

    def ended(self, comfy: Comfy, prompt: Prompt) -> None:
        backend = self.backends[comfy.number]
        if prompt.job is None:
            backend.reserved, backend.loaded = False, prompt.models[0]
            self.pressures.get(prompt.models[0], Pressure(0)).loading = False
        else:
            backend.usages -= 1
            backend.released_ms = self.agenda.now_ms
        self._room(comfy.number)
        self._signal()

    def died(self, comfy: Comfy, held: list[Prompt]) -> None:
        backend = self.backends[comfy.number]
        for prompt in held:
            if prompt.job is None:
                self.pressures.get(prompt.models[0], Pressure(0)).loading = False
        backend.usages, backend.loaded, backend.reserved = 0, None, False
        super().died(comfy, held)

    def back(self, comfy: Comfy) -> None:
        self._room(comfy.number)
        self._signal()

    # ---- looking through the requests

    def _every_second(self) -> None:
        if self.waiting:
            self._wake()
        self.agenda.after(WAKE_MS, self._every_second)

    def _signal(self) -> None:
        if not self._asked:
            self._asked = True
            self.agenda.after(0, self._wake)

    def _wake(self) -> None:
        """Requests ask in turn, oldest first; behind one that was refused, those for the same thing need not ask."""
        self._asked = False
        heads = [(next(iter(requests)), want) for want, requests in self.waiting.items()]
        heapq.heapify(heads)
        refused = 0
        while heads:
            _, want = heapq.heappop(heads)
            requests = self.waiting[want]
            number = self._loaded(want)
            if number is None:
                refused += len(requests)
                self._press(want[0], requests)
                self._load_highest()
                continue
            self._claim(want, number)
            if want in self.waiting:
                heapq.heappush(heads, (next(iter(requests)), want))
        while refused and self._load_highest():
            refused -= 1

    def _claim(self, want: Want, number: int) -> None:
        requests = self.waiting[want]
        _, job = requests.popitem(last=False)
        if not requests:
            del self.waiting[want]
        if job.number in self._pressed:
            self._pressed.discard(job.number)
            pressure = self.pressures[want[0]]
            pressure.count -= 1
            if not pressure.count:
                del self.pressures[want[0]]
        backend = self.backends[number]
        backend.usages += 1
        self._room(number)
        backend.comfy.post(picture(job))

    def _loaded(self, want: Want) -> int | None:
        """The least used backend with room that has the model wanted."""
        return self._least_used(self.ready[want[0]], want[1])

    def _least_used(self, heap: list[tuple[int, int]], vram_bytes: int) -> int | None:
        unfit = []
        found = None
        while heap and found is None:
            usages, number = heap[0]
            backend = self.backends[number]
            current = heap is self.ready[self._shelf(backend)] and usages == backend.usages
            if not current or not self._has_room(backend):
                heapq.heappop(heap)
            elif vram_bytes > backend.comfy.card.vram_bytes:
                unfit.append(heapq.heappop(heap))
            else:
                found = number
        for entry in unfit:
            heapq.heappush(heap, entry)
        return found

    def _shelf(self, backend: Backend) -> Model | None:
        return backend.loaded

    def _has_room(self, backend: Backend) -> bool:
        return backend.comfy.alive and not backend.reserved and backend.usages < USAGES

    def _room(self, number: int) -> None:
        backend = self.backends[number]
        if self._has_room(backend):
            heapq.heappush(self.ready[self._shelf(backend)], (backend.usages, number))

    # ---- pressure

    def _press(self, model: Model, requests: OrderedDict[int, Job]) -> None:
        """Count those that are not counted yet: the newest."""
        for number in reversed(requests):
            if number in self._pressed:
                return
            self._pressed.add(number)
            self.pressures.setdefault(model, Pressure(self.agenda.now_ms)).count += 1

    def _load_highest(self) -> bool:
        """Whether a load was begun."""
        open_pressures = [(m, p) for m, p in self.pressures.items() if not p.loading]
        loaders = [backend for backend in self.backends if self._has_room(backend)] if open_pressures else []
        if not loaders:
            return False
        now_ms = self.agenda.now_ms
        model, highest = max(open_pressures, key=lambda mp: mp[1].count * 10 + (now_ms - mp[1].first_ms) // 1_000)
        if len(loaders) > 1 and now_ms - highest.first_ms <= PRESSURE_MS:
            return False
        needed = max(vram_bytes for wanted, vram_bytes in self.waiting if wanted == model)
        valid = [b for b in loaders if b.loaded != model and b.comfy.card.vram_bytes >= needed]
        valid = [b for b in valid if b.usages == 0] or valid
        if not valid:
            return False
        chosen = min(valid, key=lambda b: b.released_ms)
        chosen.reserved = highest.loading = True
        self._drain(chosen, model)
        return True

    def _drain(self, chosen: Backend, model: Model) -> None:
        if not chosen.reserved:
            return  # it died
        if chosen.usages:
            self.agenda.after(DRAIN_LOOK_MS, functools.partial(self._drain, chosen, model))
        else:
            chosen.comfy.post(Prompt(None, (model,), TINY))


class SwarmRaw(Swarm):
    """A raw ComfyUI graph: no model is known, the backend with the fewest usages is taken."""

    def _shelf(self, backend: Backend) -> Model | None:
        return None

    def _loaded(self, want: Want) -> int | None:
        return self._least_used(self.ready[None], want[1])

    def _load_highest(self) -> bool:
        return False
