"""How long a job would take where: learnt from what ran, seeded by what is known of cards and files. Pure.

A run is learnt per unit of work (pixels x steps) for each signature on each worker. Where that pair has not met yet,
the signature's time on a reference card is divided by the worker's speed; both are learnt from the same runs. A load is
learnt for each model on each worker, then for the model anywhere, then taken from the usual size of such a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from statistics import median
from typing import Final

from broker.core import cards
from broker.protocol.records import Needs
from broker.protocol.value import dataclass

#: The weight of the newest measurement.
NEW: Final = 0.25
#: Figures kept of one kind; beyond that the one used longest ago is forgotten.
FIGURES: Final = 20_000
#: Measurements after which a figure is relied on.
SAMPLES: Final = 3
#: Attempts over which the error of what was expected is told.
ERRORS: Final = 500
SLOWEST, FASTEST = 0.001, 100.0
#: Bounds of what is told, whatever a workflow or a worker says of itself.
ERROR_MOST: Final = 1_000.0
LONGEST_MS: Final = 30 * 24 * 3_600_000


class Kind:
    """What a figure is about; the names are those in the store."""

    RUN: Final = "run"  # ms per unit of work: signature, worker
    REFERENCE: Final = "reference"  # ms per unit of work on the reference card: signature
    SPEED: Final = "speed"  # relative to the reference card: worker
    ANY: Final = "any"  # ms: worker
    LOAD: Final = "load"  # ms: model, worker; worker empty = anywhere, model empty = all that a job was missing


@dataclass(frozen=True, slots=True)
class Figure:
    """Something learnt, as the store keeps it."""

    kind: str
    subject: str
    worker: str
    value: float
    samples: int


class Estimates:
    def __init__(self) -> None:
        self._figures: dict[tuple[str, str, str], Figure] = {}
        #: What cards are thought to do before they have done anything: by worker.
        self._cards: dict[str, float] = {}
        self._errors: deque[float] = deque(maxlen=ERRORS)
        #: Figures changed since they were last saved.
        self._unsaved: dict[tuple[str, str, str], None] = {}

    def recall(self, figure: Figure) -> None:
        """Take over what the store holds; what nobody can have measured there is learnt anew."""
        least, most = (SLOWEST, FASTEST) if figure.kind == Kind.SPEED else (0.0, LONGEST_MS)
        if not least <= figure.value <= most or figure.samples < 1:
            return
        self._figures[figure.kind, figure.subject, figure.worker] = figure

    def unsaved(self) -> Iterator[Figure]:
        """Each figure that has changed since the last call."""
        changed, self._unsaved = self._unsaved, {}
        return (self._figures[key] for key in changed if key in self._figures)

    def know_card(self, worker: str, name: str, kind: str) -> None:
        self._cards.pop(worker, None)
        self._cards[worker] = cards.speed_of(name, kind)
        if len(self._cards) > FIGURES:
            del self._cards[next(iter(self._cards))]

    # ---- what is expected

    def size_bytes(self, model: str) -> int:
        """The usual size of such a file: /object_info tells none."""
        return cards.size_of(model)

    def speed(self, worker: str) -> float:
        learnt = self._figures.get((Kind.SPEED, worker, ""))
        return learnt.value if learnt is not None else self._cards.get(worker, 1.0)

    def run_ms(self, needs: Needs, worker: str) -> int:
        return self.runs(needs)(worker, self.speed(worker))

    def runs(self, needs: Needs) -> Callable[[str, float], int]:
        """How long such jobs run, as a function of the worker and its speed: for many workers one after another."""
        figures, signature, units = self._figures, needs.signature, work(needs)
        reference_ms = self.reference_ms(needs)

        def run_ms(worker: str, speed: float) -> int:
            figure = figures.get((Kind.RUN, signature, worker))
            expected = figure.value * units if figure is not None else reference_ms / speed
            return int(expected) + 1 if expected < LONGEST_MS else LONGEST_MS

        return run_ms

    def reference_ms(self, needs: Needs) -> float:
        """The run on a reference card: what a job costs, whoever runs it."""
        figure = self._figures.get((Kind.REFERENCE, needs.signature, ""))
        if figure is not None:
            return min(figure.value * work(needs), LONGEST_MS)
        known = needs.pixels and needs.steps
        return min(cards.RUN_MS_PER_UNIT * work(needs), LONGEST_MS) if known else cards.RUN_MS

    def size(self, needs: Needs) -> float:
        """How much work a job is, to weigh it beside others: in pixels x steps; where the workflow does not tell them,
        by the time that such jobs take."""
        if needs.pixels and needs.steps:
            return work(needs)
        return self.reference_ms(needs) / cards.RUN_MS_PER_UNIT

    def has_run(self, needs: Needs, worker: str) -> bool:
        """Whether such a job was ever timed there."""
        return (Kind.RUN, needs.signature, worker) in self._figures

    def is_known(self, needs: Needs) -> bool:
        """Whether such jobs were timed often enough to say how long one cannot take."""
        figure = self._figures.get((Kind.REFERENCE, needs.signature, ""))
        return figure is not None and figure.samples >= SAMPLES

    def load_ms(self, model: str, worker: str) -> int:
        for where in (worker, ""):
            figure = self._figures.get((Kind.LOAD, model, where))
            if figure is not None:
                return int(figure.value)
        return self.size_bytes(model) // cards.LOAD_BYTES_PER_MS

    def usual_load_ms(self, worker: str) -> int | None:
        """What it takes a worker to load whatever a job was missing; None before it ever did."""
        figure = self._figures.get((Kind.LOAD, "", worker))
        return int(figure.value) if figure is not None else None

    def usual_run_ms(self, worker: str) -> int:
        """What anything takes there: all that can be said of a prompt of which nothing is known."""
        figure = self._figures.get((Kind.ANY, worker, ""))
        return int(figure.value) if figure is not None else int(cards.RUN_MS / self.speed(worker))

    def median_error(self) -> float | None:
        """By how much, relative to what was measured, attempts were expected wrongly; None before the first."""
        return median(self._errors) if self._errors else None

    # ---- what was measured

    def ran(self, needs: Needs, worker: str, run_ms: int) -> None:
        """A prompt took so long, loading aside."""
        measured = min(max(run_ms, 1), LONGEST_MS) / work(needs)
        reference = self._figures.get((Kind.REFERENCE, needs.signature, ""))
        if reference is not None:
            speed = self.speed(worker)
            seen = min(FASTEST, max(SLOWEST, reference.value / measured))
            self._set(Kind.SPEED, worker, "", speed + NEW * (seen - speed))
        self._learn(Kind.REFERENCE, needs.signature, "", measured * self.speed(worker))
        self._learn(Kind.RUN, needs.signature, worker, measured)

    def took(self, worker: str, running_ms: int) -> None:
        """Something ran there for so long, loading included."""
        self._learn(Kind.ANY, worker, "", min(running_ms, LONGEST_MS))

    def loaded(self, models: tuple[str, ...], worker: str, load_ms: int) -> None:
        """These models were loaded in so long: each in its expected share."""
        load_ms = min(load_ms, LONGEST_MS)
        self._learn(Kind.LOAD, "", worker, load_ms)
        expected = {model: self.load_ms(model, worker) + 1 for model in models}
        total = sum(expected.values())
        for model, share in expected.items():
            self._learn(Kind.LOAD, model, worker, load_ms * share / total)
            self._learn(Kind.LOAD, model, "", load_ms * share / total)

    def turned_out(self, expected_ms: int, measured_ms: int) -> None:
        self._errors.append(min(ERROR_MOST, abs(measured_ms - expected_ms) / max(1, measured_ms)))

    def _learn(self, kind: str, subject: str, worker: str, measured: float) -> None:
        known = self._figures.get((kind, subject, worker))
        self._set(kind, subject, worker, measured if known is None else known.value + NEW * (measured - known.value))

    def _set(self, kind: str, subject: str, worker: str, value: float) -> None:
        key = kind, subject, worker
        known = self._figures.pop(key, None)
        samples = known.samples + 1 if known is not None else 1
        self._figures[key] = Figure(kind, subject, worker, value, samples)
        self._unsaved[key] = None
        if len(self._figures) > FIGURES:
            del self._figures[next(iter(self._figures))]


def work(needs: Needs) -> int:
    """Units that a run's time grows with; 1 where the workflow does not tell."""
    return max(1, needs.pixels) * max(1, needs.steps)


def left_ms(expected_ms: int, gone_ms: int) -> int:
    """What is left of a run: one that takes longer than expected takes longer still, the longer it has."""
    return max(expected_ms - gone_ms, (gone_ms - expected_ms) // 2)
