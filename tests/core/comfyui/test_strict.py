import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui import strict
from comfyui.strict import StrictError
from tests.core.comfyui.strategies import json_values

sane_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
sane_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | sane_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(sane_text, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"a":', "Expecting value at line 1"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "64 bits"),
        (b'{"a":18446744073709551616}', "64 bits"),
        (b'{"a":-9223372036854775809}', "64 bits"),
        (b'{"a":1,"a":2}', "stands twice"),
        (b'{"x":[{"a":1,"b":2,"a":3}]}', "'a' stands twice"),
        (b'{"\\ud800":1,"\\ud800":2}', "stands twice"),
        (b"[" * 45_000 + b"]" * 45_000, "nested too deeply"),
        (b"'a'", "Expecting value"),
    ],
)
def test_what_is_refused_while_reading(raw: bytes, reason: str) -> None:
    with pytest.raises(StrictError, match=reason) as caught:
        strict.load(raw)
    str(caught.value).encode()


def test_numbers_keep_every_digit() -> None:
    assert strict.load(b"[18446744073709551615,-9223372036854775808,0.1,1e3]") == [2**64 - 1, -(2**63), 0.1, 1000.0]


@pytest.mark.parametrize(
    ("text", "reason", "path"),
    [
        (r'{"7":{"inputs":{"text":"a\u0000b"}}}', "NUL", ("7", "inputs", "text")),
        (r'{"7":{"inputs":{"text":"a\ud800"}}}', r"surrogate pair \(character 1\)", ("7", "inputs", "text")),
        (r'{"7":["x",{"a\u0000":1}]}', "NUL", ("7", "1")),
        ('{"a":' * 65 + "1" + "}" * 65, "deeper than 64", ("a", "a", "a")),
    ],
)
def test_what_is_refused_in_texts_and_depth(text: str, reason: str, path: tuple[str, ...]) -> None:
    with pytest.raises(StrictError, match=reason) as caught:
        strict.check(strict.load(text.encode()))
    assert caught.value.path == path


def test_what_other_programs_choke_on_but_is_sound_is_kept() -> None:
    value = strict.load('{"a":"\u202eRTL 🌊 \\ud83c\\udf0a","b":[[[[]]]]}'.encode())
    strict.check(value)
    assert value == {"a": "\u202eRTL 🌊 🌊", "b": [[[[]]]]}
    strict.check(json.loads("[" * 64 + "]" * 64))


@given(sane_json)
def test_sound_json_comes_back_the_same(value: object) -> None:
    loaded = strict.load(json.dumps(value).encode())
    strict.check(loaded)
    assert loaded == value


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_value_that_can_be_stored_or_one_error(raw: bytes) -> None:
    try:
        value = strict.load(raw)
        strict.check(value)
    except StrictError:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def test_the_limit_holds_whatever_the_recursion_limit_is() -> None:
    deep: object = 1
    for _ in range(sys.getrecursionlimit() * 3):
        deep = [deep]
    with pytest.raises(StrictError, match="deeper"):
        strict.check(deep)
