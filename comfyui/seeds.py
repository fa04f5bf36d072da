"""The same picture again and otherwise: N workflows that differ in nothing but their seeds, each one more. Pure."""

from collections.abc import Iterator, Mapping

from comfyui.template import Template
from comfyui.values import read, seed_max
from comfyui.workflow import SEED_MAX, SEEDS, Workflow, WorkflowError, set_inputs


def of_template(template: Template, values: Mapping[str, object], count: int) -> Iterator[dict[str, object]]:
    """`count` sets of values for a form, the first as given; past its largest a seed begins again at 0.

    values: sound, and complete as `Template.complete` makes them. Raises: WorkflowError when the form has no seed.
    """
    seeds = [field for field in template.fields if field.type == "seed"]
    if not seeds:
        raise _alike(f"the template {template.name} has no seed")
    for number in range(count):
        more = {}
        for field in seeds:
            seed = read(field, values[field.key])
            assert isinstance(seed, int)
            more[field.key] = (seed + number) % (seed_max(field) + 1)
        yield {**values, **(more if number else {})}


def of_workflow(workflow: Workflow, count: int) -> Iterator[Workflow]:
    """`count` workflows, the first as given. Raises: WorkflowError when no node has a seed of its own."""
    seeds = {
        (node_id, name): value
        for node_id, node in workflow.nodes.items()
        for name, value in node.inputs.items()
        if name in SEEDS and isinstance(value, int)
    }
    if not seeds:
        raise _alike("no node of the workflow has a seed of its own")
    yield workflow
    for number in range(1, count):
        yield set_inputs(workflow, {place: (seed + number) % (SEED_MAX + 1) for place, seed in seeds.items()})


def _alike(why: str) -> WorkflowError:
    return WorkflowError("no_seed", f"{why}, so all jobs of a group would give the same: ask for one")
