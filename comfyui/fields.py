"""The fields of a template's form: what each asks for, and which inputs of the workflow it sets.

Only the shapes: values.py checks what a person enters, forms.py reads the form file. Pure.
"""

from dataclasses import dataclass

from comfyui.workflow import Kind


class Refused(Exception):
    """A value does not fit its field. The text follows the field's name; `row` counts from 1, 0 for the whole value.

    problem and values say the same to programs, and to people of other languages; "" for what no form lets through.
    """

    def __init__(
        self, reason: str, kind: Kind = "unprocessable", *, row: int = 0, problem: str = "", **values: str | float
    ):
        super().__init__(reason)
        self.kind: Kind = kind
        self.row = row
        self.problem = problem
        self.values = values

    def at(self, row: int) -> "Refused":
        """The same of one row."""
        return Refused(str(self), self.kind, row=row, problem=self.problem, **self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """The input that a field sets."""

    node: str
    input: str
    axis: str = ""  # of a size: width or height
    part: str = ""  # of panels: scenes or captions (a text each), or pictures (their order, put on this link)


@dataclass(frozen=True, slots=True)
class Field:
    key: str  # the parameter's name
    label: str
    type: str  # text longtext integer number switch seed choice model image size roles panels
    sets: tuple[Target, ...]
    default: object = None  # None: the field must be given; a seed is then drawn
    min: float | None = None  # of a number, of each side of a size, of a text's length, of the rows of a list
    max: float | None = None
    step: float | None = None  # whole numbers and sizes: multiples of it; others: a hint for the form
    help: str = ""
    group: str = ""
    choices: tuple[str, ...] = ()  # all values of a choice; the offered ones of a size ("1024x768")
