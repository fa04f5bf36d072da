"""`python -m tests.contract.store.life FOLDER`: a broker's life in one process without sockets, told line by line.

Start-up with all migrations, three submits, dispatches, results, a backup. A line is printed only when what it says
would have left the broker: so whatever kills the process, what was printed must be true of the disk.
"""

from __future__ import annotations

import sys
from pathlib import Path

from broker.core.events import FromClient, FromWorker
from broker.core.fleet import Fleet
from broker.core.rules import Now, Rules
from broker.protocol import client
from broker.protocol import worker as wire
from broker.protocol.errors import StoreError
from broker.store import backup
from broker.store.sqlite import SqliteStore
from broker.turn import GATHER_MS, Turn
from tests.core.broker.given import CLIENT, STREAM, TIMINGS, Given, submit_of

JOBS = 3


def main() -> int:
    folder = Path(sys.argv[1])
    try:
        live(folder)
    except StoreError as e:
        print(f"failed {e}", file=sys.stderr)
        return 1
    return 0


def live(folder: Path) -> None:
    store = SqliteStore(folder / backup.DATABASE)
    fleet = Fleet(
        Rules(), STREAM, jitter=lambda: 0.5, counts=store.counts(), last_sequence=store.last_sequence(), now=now(0)
    )
    fleet.recover(store.live(), store.notes(), store.figures(), now(0))
    turn = Turn(fleet, store, lambda sha256: True)
    say("started")
    # Only its messages are used: what it knows itself does not count here.
    gpu = Given().worker("gpu-0", 1)
    heard = [
        FromWorker(gpu.session, gpu.introduction()),
        FromWorker(gpu.session, wire.Capabilities(digest=gpu.capabilities, nodes=("KSampler",), models=())),
    ]
    for number in range(1, JOBS + 1):
        ready = wire.Ready(serial=number, credits=1, seen=number - 1)
        submit, ms = FromClient(CLIENT, submit_of(number)), number * 2 * GATHER_MS
        sent = take(turn, [*heard, FromWorker(gpu.session, ready)], [submit], ms)
        ends = [wire.Complete(job_id=one.job_id, attempt=one.attempt, outputs=(), timings=TIMINGS) for one in sent]
        take(turn, [FromWorker(gpu.session, end) for end in ends], [], ms)
        take(turn, [], [], ms + GATHER_MS)
        heard = []
    store.checkpoint()
    made = backup.make(folder, folder / "backup", "1")
    say(f"backup {made.jobs}")
    store.close()
    say("ended")


def take(turn: Turn, heard: list[FromWorker], asked: list[FromClient], ms: int) -> list[wire.Dispatch]:
    """One turn; says what leaves, and returns the dispatches among it."""
    out = turn.take(heard, asked, now(ms))
    sent = []
    for reply in out.to_clients:
        if isinstance(reply.message, client.JobReply):
            say(f"accepted {reply.message.job.job_id}")
    for send in out.to_workers:
        if isinstance(send.message, wire.Dispatch):
            sent.append(send.message)
            say(f"sent {send.message.job_id} {send.message.attempt}")
    for send in out.recorded:
        say(f"recorded {send.message.job_id}")
    return sent


def now(ms: int) -> Now:
    return Now(mono_ms=ms, utc_ms=1_700_000_000_000 + ms)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
