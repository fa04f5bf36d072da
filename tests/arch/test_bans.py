"""What no file may call: clocks and chance in pure code; code and objects from strangers' bytes anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arch.tree import ROOT, parsed, pure_files, python_files

#: In pure files, besides what they may not import: whoever needs these gets a value passed in.
IMPURE = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.monotonic", "time.sleep",
    "random.random", "random.choice", "random.randint", "random.uniform", "random.shuffle", "os.environ", "os.getenv",
    "uuid.uuid1", "uuid.uuid4", "open", "print", "input",
}  # fmt: skip
#: Modules that make objects of bytes.
DANGEROUS_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle"}
#: Calls that run text as code, or unpickle on the way; with a leading dot: a method of anything.
DANGEROUS_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load",
    ".recv_pyobj", ".send_pyobj", ".recv_serialized", ".send_serialized",
}  # fmt: skip
#: Bottle's signed cookies are pickles; its methods take `secret`.
COOKIES = {"get_cookie", "set_cookie"}


def dotted(node: ast.AST) -> str:
    """`a.b.c` as written; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def matches(name: str, banned: set[str]) -> bool:
    """Whether `name` is one of them or ends in one that has a dot."""
    return name in banned or any("." in ban and f".{name}".endswith(f".{ban.lstrip('.')}") for ban in banned)


def impurities(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Call, ast.Attribute)):
            name = dotted(node.func if isinstance(node, ast.Call) else node)
            if matches(name, IMPURE):
                yield node.lineno


def dangers(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found = bool({alias.name.split(".")[0] for alias in node.names} & DANGEROUS_MODULES)
            case ast.ImportFrom():
                found = (node.module or "").split(".")[0] in DANGEROUS_MODULES
            case ast.Call():
                name, keywords = dotted(node.func), {k.arg: k.value for k in node.keywords}
                signed = name.split(".")[-1] in COOKIES and "secret" in keywords
                shell = "shell" in keywords and ast.unparse(keywords["shell"]) != "False"
                found = signed or shell or matches(name, DANGEROUS_CALLS)
            case _:
                continue
        if found:
            yield node.lineno


def places(path: Path, lines: Iterator[int]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}" for line in lines]


def test_pure_files_read_no_clock_no_chance_no_environment() -> None:
    assert pure_files()
    assert [place for path in pure_files() for place in places(path, impurities(parsed(path)))] == []


def test_nothing_makes_code_or_objects_of_bytes() -> None:
    assert [place for path in python_files() for place in places(path, dangers(parsed(path)))] == []


@pytest.mark.parametrize(
    "code",
    [
        "datetime.now()", "datetime.datetime.now(tz)", "time.time()", "x = os.environ['A']", "random.choice(a)",
        "uuid.uuid4()", "open('x')", "f(clock=time.monotonic)",
    ],
)  # fmt: skip
def test_impurities_are_seen(code: str) -> None:
    assert list(impurities(ast.parse(code)))


@pytest.mark.parametrize("code", ["now.utc_ms", "self.open()", "datetime.timedelta(1)", "job.time.timer()", "reopen()"])
def test_pure_code_is_left_alone(code: str) -> None:
    assert not list(impurities(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import yaml.loader", "eval(x)", "exec('x')", "__import__(n)",
        "socket.recv_pyobj()", "self.router.send_pyobj(x)", "request.get_cookie('a', secret=k)", "run(c, shell=True)",
        "run(c, shell=x)", "os.system(c)", "compile(x)",
    ],
)  # fmt: skip
def test_dangers_are_seen(code: str) -> None:
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize("code", ["re.compile(x)", "model.eval()", "run(c, shell=False)", "set_cookie('a', 'b')"])
def test_harmless_code_is_left_alone(code: str) -> None:
    assert not list(dangers(ast.parse(code)))
