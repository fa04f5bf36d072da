"""Which ComfyUI version behaves how: every difference the simulator shows, each with the first version that has it.

Pure. The thresholds come from recordings of 0.3.34 and 0.3.64 and, above those, from the later server's public sources.
"""

import re
from dataclasses import dataclass

#: What a simulator is unless told otherwise, and what it can be told.
DEFAULT_VERSION = "0.3.64"
KNOWN_VERSIONS = ("0.3.34", "0.3.64", "0.45.2")


@dataclass(frozen=True)
class Release:
    """One version, compared as numbers: 0.45 is newer than 0.3.64."""

    text: str

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", self.text)[:3])

    @property
    def explains_memory_errors(self) -> bool:
        """exception_message ends in a line feed, and after running out of memory in a tip."""
        return self.number >= (0, 3, 42)

    @property
    def negotiates(self) -> bool:
        """feature_flags on the socket, GET /features, progress_state, previews with metadata, keys out of history."""
        return self.number >= (0, 3, 45)

    @property
    def takes_prompt_ids(self) -> bool:
        return self.number >= (0, 3, 45)

    @property
    def takes_targets(self) -> bool:
        """partial_execution_targets is honoured."""
        return self.number >= (0, 3, 48)

    @property
    def interrupts_by_id(self) -> bool:
        return self.number >= (0, 3, 57)

    @property
    def tells_everybody_progress(self) -> bool:
        """progress_state went to every socket until it was mended in 0.3.58."""
        return self.negotiates and self.number < (0, 3, 58)

    @property
    def pages_history(self) -> bool:
        """GET /history honours offset; before, it was read by nobody."""
        return self.number >= (0, 3, 60)

    @property
    def lists_templates(self) -> bool:
        """system_stats names frontend and template versions, and the model list names newer kinds and file facts."""
        return self.number >= (0, 3, 61)

    @property
    def checks_newer_choices(self) -> bool:
        """A choice of the newer node interface is compared with its list; 0.3.64 takes any value there."""
        return self.modern

    @property
    def modern(self) -> bool:
        """The servers of late 2026: ids must be UUIDs, /api/jobs, missing_node_type, no keys in /queue."""
        return self.number >= (0, 38)
