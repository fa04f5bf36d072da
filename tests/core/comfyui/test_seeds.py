"""Workflows that differ in their seeds alone."""

import dataclasses

import pytest

from comfyui import seeds
from comfyui.library import BUILT_IN, load_templates
from comfyui.workflow import SEED_MAX, WorkflowError, set_inputs

TEMPLATE = load_templates(BUILT_IN)[0]["text-to-image"]


def test_each_set_of_values_has_the_next_seed_and_the_first_is_as_given() -> None:
    values = TEMPLATE.complete({"prompt": "a", "seed": "9"}, seed=0)
    each = list(seeds.of_template(TEMPLATE, values, 3))
    assert each[0] == values
    assert [one["seed"] for one in each] == ["9", 10, 11]
    assert all(one.items() - {"seed": 0}.items() >= {("prompt", "a")} for one in each)
    filled = [TEMPLATE.fill(one, seed=0).nodes["3"].inputs["seed"] for one in each]
    assert filled == [9, 10, 11]


def test_a_field_that_takes_small_seeds_begins_again_at_0() -> None:
    fields = tuple(dataclasses.replace(f, max=7) if f.type == "seed" else f for f in TEMPLATE.fields)
    small = dataclasses.replace(TEMPLATE, fields=fields)
    values = small.complete({"prompt": "a", "seed": 6}, seed=0)
    assert [one["seed"] for one in seeds.of_template(small, values, 4)] == [6, 7, 0, 1]


def test_a_workflows_own_seed_counts_on() -> None:
    workflow = set_inputs(TEMPLATE.workflow, {("3", "seed"): SEED_MAX})
    each = list(seeds.of_workflow(workflow, 3))
    assert each[0] is workflow
    assert [one.nodes["3"].inputs["seed"] for one in each] == [SEED_MAX, 0, 1]


def test_what_has_no_seed_cannot_be_varied() -> None:
    seedless = dataclasses.replace(TEMPLATE, fields=tuple(f for f in TEMPLATE.fields if f.type != "seed"))
    with pytest.raises(WorkflowError, match="the template text-to-image has no seed"):
        list(seeds.of_template(seedless, {}, 2))
    no_nodes = dataclasses.replace(TEMPLATE.workflow, nodes={})
    with pytest.raises(WorkflowError, match="no node of the workflow has a seed"):
        list(seeds.of_workflow(no_nodes, 2))
