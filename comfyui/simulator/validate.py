"""Judges a posted prompt as the server does before it answers: which outputs can run, and every error in its shape.

Pure: the node classes are described to it in the form of GET /object_info, and it asks one question about the world,
whether an input file exists. As in the real server, accepted values are converted in the graph itself ("77" → 77).
"""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from comfyui.simulator.graph import Graph
from comfyui.simulator.versions import Release

Problem = dict[str, Any]
#: Class name → its entry in GET /object_info, or None for an unknown class.
Describe = Callable[[str], dict[str, Any] | None]

#: A list of choices longer than this is not spelt out in an error.
MOST_CHOICES_NAMED = 20
#: What values given as another type are converted by; "77" is a number, too.
CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@dataclass
class Verdict:
    """What POST /prompt is answered with: either `error` is set or `outputs` names what will run."""

    outputs: list[str] = field(default_factory=list)
    error: Problem | None = None
    node_errors: dict[str, Problem] = field(default_factory=dict)


def problem(kind: str, message: str, details: str = "", **extra_info: Any) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def validate(
    graph: Graph,
    describe: Describe,
    is_file: Callable[[str], bool],
    release: Release,
    targets: Iterable[str] | None = None,
) -> Verdict:
    """The verdict on a whole prompt; `targets` limits the outputs that are wanted."""
    wanted = []
    for node_id in graph:
        node = graph[node_id]
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Verdict(error=problem("invalid_prompt", message, f"Node ID '#{node_id}'"))
        entry = describe(node["class_type"])
        if entry is None:
            return Verdict(error=_unknown_class(node_id, node, release))
        if entry["output_node"] and (targets is None or node_id in targets):
            wanted.append(node_id)
    if not wanted:
        return Verdict(error=problem("prompt_no_outputs", "Prompt has no outputs"))
    return _Walk(graph, describe, is_file, release).judge(wanted)


def _unknown_class(node_id: str, node: dict[str, Any], release: Release) -> Problem:
    name = node["class_type"]
    if not release.modern:
        return problem("invalid_prompt", f"Cannot execute because node {name} does not exist.", f"Node ID '#{node_id}'")
    title = node.get("_meta", {}).get("title", name)
    return problem(
        "missing_node_type",
        f"Node '{title}' not found. The custom node may not be installed.",
        f"Node ID '#{node_id}'",
        node_id=node_id,
        class_type=name,
        node_title=title,
    )


class _Walk:
    """One pass over the nodes that the wanted outputs need; each node is judged once."""

    def __init__(self, graph: Graph, describe: Describe, is_file: Callable[[str], bool], release: Release) -> None:
        self._graph = graph
        self._describe = describe
        self._is_file = is_file
        self._release = release
        self._judged: dict[str, tuple[bool, list[Problem]]] = {}
        self._open: set[str] = set()

    def judge(self, wanted: list[str]) -> Verdict:
        verdict, own_errors = Verdict(), []
        for output in wanted:
            try:
                valid, errors = self._node(output)
            except Exception as e:  # noqa: BLE001 - whatever a malformed graph causes is reported, as the server does
                valid, errors = False, [_during("validation", e, "Exception when validating node")]
                self._judged[output] = (valid, errors)
            if valid:
                verdict.outputs.append(output)
                continue
            own_errors += errors
            for node_id, (_, found) in self._judged.items():
                if found:
                    entry = {"errors": found, "dependent_outputs": [], "class_type": self._graph[node_id]["class_type"]}
                    verdict.node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
        if not verdict.outputs:
            details = "\n".join(f"{error['message']}: {error['details']}" for error in own_errors)
            verdict.error = problem("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return verdict

    def _node(self, node_id: str) -> tuple[bool, list[Problem]]:
        """Whether the node and all it needs are sound, and the node's own errors. May raise on a malformed graph."""
        if node_id in self._judged:
            return self._judged[node_id]
        if node_id in self._open:  # a loop makes the prompt invalid without an error on any node
            return (False, [])
        self._open.add(node_id)
        inputs = self._graph[node_id]["inputs"]
        entry = self._describe(self._graph[node_id]["class_type"])
        valid, errors = True, []
        for category in ("required", "optional"):
            for name, spec in (entry or {})["input"].get(category, {}).items():
                if name not in inputs:
                    if category == "required":
                        text = "Required input is missing"
                        errors.append(problem("required_input_missing", text, name, input_name=name))
                    continue
                if isinstance(inputs[name], list):
                    sound, error = self._link(name, _config(spec), inputs[name])
                    valid = valid and sound
                else:
                    error = self._literal(name, _config(spec), inputs)
                if error is not None:
                    errors.append(error)
        self._judged[node_id] = (valid and not errors, errors)
        return self._judged[node_id]

    def _link(self, name: str, config: list[Any], value: list[Any]) -> tuple[bool, Problem | None]:
        """Whether what the link leads to is sound, and an error of the link itself."""
        if len(value) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return True, problem(
                "bad_linked_input", message, name, input_name=name, input_config=config, received_value=value
            )
        source_class = self._describe(self._graph[value[0]]["class_type"])
        received = tuple((source_class or {})["output"])[value[1]]
        if not _fits(received, config[0]):
            return True, problem(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                f"{name}, received_type({received}) mismatch input_type({config[0]})",
                input_name=name,
                input_config=config,
                received_type=received,
                linked_node=value,
            )
        try:
            return self._node(value[0])[0], None
        except Exception as e:  # noqa: BLE001 - reported on the node behind the link, as the server does
            error = _during("inner_validation", e, "Exception when validating inner node")
            facts = {"input_name": name, "input_config": config, "exception_message": str(e)}
            error["extra_info"] = facts | error["extra_info"] | {"linked_node": value}
            self._judged[value[0]] = (False, [error])
            return False, None

    def _literal(self, name: str, config: list[Any], inputs: dict[str, Any]) -> Problem | None:
        kind, options = config
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:  # how a list is written so that it is no link
            value = inputs[name] = value["__value__"]
        convert = CONVERSIONS.get(kind) if isinstance(kind, str) else None
        if convert is not None:
            try:
                value = inputs[name] = convert(value)
            except (TypeError, ValueError, OverflowError) as e:
                return problem(
                    "invalid_input_type",
                    f"Failed to convert an input value to a {kind} value",
                    f"{name}, {value}, {e}",
                    input_name=name,
                    input_config=config,
                    received_value=value,
                    exception_message=str(e),
                )
        if options.get("image_upload"):  # judged by the file itself, not by the list of files
            if self._is_file(value):
                return None
            text = f"{name} - Invalid image file: {value}"
            return problem("custom_validation_failed", "Custom validation failed for node", text, input_name=name)
        return _outside(name, config, value, self._release)


def _config(spec: list[Any]) -> list[Any]:
    """[type, options], also for an input described without options."""
    return [spec[0], spec[1] if len(spec) > 1 else {}]


def _outside(name: str, config: list[Any], value: Any, release: Release) -> Problem | None:
    """The error of a value beyond its bounds or not among its choices."""
    kind, options = config
    facts = {"input_name": name, "input_config": config, "received_value": value}
    if "min" in options and value < options["min"]:
        text = f"Value {value} smaller than min of {options['min']}"
        return problem("value_smaller_than_min", text, name, **facts)
    if "max" in options and value > options["max"]:
        return problem("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name, **facts)
    newer = options.get("options") if kind == "COMBO" and release.checks_newer_choices else None
    choices = kind if isinstance(kind, list) else newer
    if choices is None or value in choices:
        return None
    listed = str(choices)
    if len(choices) > MOST_CHOICES_NAMED:
        listed, facts["input_config"] = f"(list of length {len(choices)})", None
    return problem("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}", **facts)


def _fits(received: Any, wanted: Any) -> bool:
    if wanted == "*" or received in ("*", wanted):
        return True
    if not (isinstance(received, str) and isinstance(wanted, str)):
        return False
    return bool(set(received.split(",")) & set(wanted.split(",")))


def _during(stage: str, error: Exception, message: str) -> Problem:
    return problem(
        f"exception_during_{stage}",
        message,
        str(error),
        exception_type=type(error).__name__,
        traceback=traceback.format_tb(error.__traceback__),
    )
