"""A fleet whose workers reach the broker through a proxy, one link for each worker and socket."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.fleet import Fleet
from scripts.proxy import Link, Proxy


class Spoiled(Fleet):
    def __init__(self, folder: Path, rng: random.Random, **rest: Any) -> None:
        super().__init__(folder, **rest)
        self.proxy = Proxy(rng)
        #: Of each worker: workers and files.
        self.links: dict[int, dict[str, Link]] = {}

    def launch_worker(self, index: int, settings: Mapping[str, str] | None = None) -> None:
        if index not in self.links:
            self.links[index] = {name: self.proxy.link(self.endpoint(name)) for name in ("workers", "files")}
        there = {f"network.{name}": f"tcp://127.0.0.1:{link.listens}" for name, link in self.links[index].items()}
        super().launch_worker(index, {**(settings or {}), **there})

    def stop(self) -> None:
        super().stop()
        self.proxy.close()
