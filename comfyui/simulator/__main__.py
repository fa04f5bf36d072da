"""`python -m comfyui.simulator`: a ComfyUI stand-in on a loopback port.

Reads the flags, builds the parts, prints one ready line and serves until a signal. As the real server it dies of
SIGTERM without a close frame (after removing its temporary files), and of SIGINT by an abort while a prompt runs.
"""

import argparse
import asyncio
import json
import logging
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from comfyui.simulator.cards import CARDS, Memory, Pace, card
from comfyui.simulator.catalog import Catalog
from comfyui.simulator.context import Rig
from comfyui.simulator.drawing import flat_png
from comfyui.simulator.events import Sockets
from comfyui.simulator.executor import Executor
from comfyui.simulator.folders import DEFAULT_MODELS, Folders, parse_model
from comfyui.simulator.journal import Journal
from comfyui.simulator.mischief import BadMischief, Mischief
from comfyui.simulator.parts import Simulator
from comfyui.simulator.prompting import queue_info
from comfyui.simulator.queue import PromptQueue
from comfyui.simulator.server import Listener, application
from comfyui.simulator.story_nodes import STORY_NODES
from comfyui.simulator.versions import DEFAULT_VERSION, KNOWN_VERSIONS, Release

#: What --custom-nodes can install.
CUSTOM = {"storydiffusion": STORY_NODES}


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="simulator", description="A ComfyUI stand-in: same API, no graphics card.")
    flags.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    flags.add_argument("--port", type=int, default=8188, help="port; 0 lets the kernel choose (default: 8188)")
    flags.add_argument("--version", choices=KNOWN_VERSIONS, default=DEFAULT_VERSION, help="behave like this ComfyUI")
    flags.add_argument("--card", choices=sorted(CARDS), default="rtx-4090", help="graphics card to pretend")
    flags.add_argument("--vram-bytes", type=int, help="the card's memory")
    flags.add_argument("--step-s", type=float, help="seconds for a sampler step at 1024 x 1024")
    flags.add_argument("--load-s", type=float, help="seconds to load a checkpoint of 7 GB")
    flags.add_argument("--speed", type=float, default=1.0, help="2 halves every time (default: 1)")
    flags.add_argument("--zero-work", action="store_true", help="nothing takes time, pictures are one flat colour")
    flags.add_argument("--flat", action="store_true", help="pictures are one flat colour and cost no processor time")
    flags.add_argument("--preview-method", choices=("auto", "none"), default="auto", help="none sends no previews")
    flags.add_argument("--seed", type=int, default=0, help="of everything random but ids")
    flags.add_argument("--models", help="[KIND/]NAME[=BYTES], comma-separated, instead of the default set")
    flags.add_argument("--custom-nodes", choices=sorted(CUSTOM), help="install nodes that ComfyUI does not bring")
    flags.add_argument("--base-directory", type=Path, help="where files are kept (default: a temporary folder)")
    flags.add_argument("--max-upload-size", type=float, default=100, help="largest request in MiB (default: 100)")
    flags.add_argument("--log", type=Path, help="write what is really done to this file, as JSON lines")
    flags.add_argument("--mischief", action="append", default=[], help='a fault to commit: {"kind": …}; repeatable')
    flags.add_argument("--no-overlap-fault", action="store_true", help="mend: a reused client id ends up deaf")
    flags.add_argument("--no-stall-fault", action="store_true", help="mend: a slow reader holds up everybody")
    return flags


def build(options: argparse.Namespace, base: Path) -> Simulator:
    """All parts, not yet running. Raises ValueError for options that make no sense together."""
    release = Release(options.version)
    models = DEFAULT_MODELS if options.models is None else tuple(map(parse_model, options.models.split(",")))
    chosen = card(options.card, options.vram_bytes, options.step_s, options.load_s)
    mischief = Mischief()
    for wish in options.mischief:
        mischief.order(json.loads(wish))
    rig = Rig(
        release,
        Folders(base, release, models),
        Pace(chosen, math.inf if options.zero_work else options.speed),
        Memory(chosen),
        mischief,
        Journal(options.log),
        random.Random(options.seed),
        previews=options.preview_method != "none",
        idle_work=options.zero_work or options.flat,
    )
    (rig.folders.input / "example.png").write_bytes(flat_png(64, 64, (90, 120, 160), {}))
    sockets = Sockets(not options.no_overlap_fault, not options.no_stall_fault)
    queue = PromptQueue(release, lambda: sockets.send("status", {"status": queue_info(sim)}, None))
    catalog = Catalog(release, rig.folders.files, CUSTOM.get(options.custom_nodes, ()))
    executor = Executor(rig, catalog, queue, sockets)
    max_upload_bytes = round(options.max_upload_size * 1024 * 1024)
    sim = Simulator(rig, catalog, queue, sockets, executor, ["main.py", *sys.argv[1:]], max_upload_bytes)
    return sim


async def serve(sim: Simulator, host: str, port: int, stop: asyncio.Event) -> None:
    """Serves until `stop` is set. Raises OSError when the port cannot be had."""
    listener: Listener | None = None

    async def refuse(seconds: float) -> None:
        if listener is not None:
            await listener.refuse(seconds)

    runner = web.AppRunner(application(sim, refuse), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listener = Listener(runner, host, port)
    await listener.open()
    tasks = [asyncio.create_task(sim.sockets.publish()), asyncio.create_task(sim.executor.work())]
    print(f"ready http://{host}:{listener.port}", flush=True)
    sim.rig.journal.note("ready", port=listener.port, version=sim.rig.release.text, card=sim.rig.pace.card.key)
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # neither ever ends by itself: this raises what broke it
        task.cancel()
    sim.sockets.cut()
    await runner.cleanup()


async def run(options: argparse.Namespace, base: Path) -> None:
    sim, stop, loop = build(options, base), asyncio.Event(), asyncio.get_running_loop()

    def leave(number: int) -> None:
        sim.rig.journal.note("stopped", signal=signal.Signals(number).name)
        if options.base_directory is None:
            shutil.rmtree(base, ignore_errors=True)
        if number == signal.SIGINT and sim.queue.running is None:
            stop.set()
            return
        # The real server is killed by SIGTERM, and aborts when interrupted in the middle of a sampler's step.
        fatal = signal.SIGTERM if number == signal.SIGTERM else signal.SIGABRT
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(fatal, signal.SIG_DFL)
        os.kill(os.getpid(), fatal)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, number)
    await serve(sim, options.host, options.port, stop)


def main() -> int:
    options = parser().parse_args()
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # a 500 is part of the play, not worth a traceback
    temporary = options.base_directory is None
    base = Path(tempfile.mkdtemp(prefix="simulator-")) if temporary else options.base_directory
    try:
        asyncio.run(run(options, base))
    except (OSError, ValueError, BadMischief) as e:
        print(f"simulator: {e}", file=sys.stderr)
        return 2
    finally:
        if temporary:
            shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
