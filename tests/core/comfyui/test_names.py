import pytest
from hypothesis import given

from comfyui.names import name_fault, path_fault, split_annotation
from tests.core.comfyui.strategies import any_text


@pytest.mark.parametrize(
    "path", ["a.png", "sub/dir/a.png", "ComfyUI_%date%_x", "Ärger 2.png", "a-b_c (1).png", "图.png"]
)
def test_names_that_may_be_used(path: str) -> None:
    assert path_fault(path) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("../../etc/passwd", '".."'),
        ("%date:..%", '".."'),
        ("/etc/passwd", "absolute"),
        ("C:\\x", "absolute"),
        ("c:x", "absolute"),
        ("..\\x", "backslash"),
        ("\\\\server\\share", "backslash"),
        ("a\0.png", "printed"),
        ("a\n.png", "printed"),
        ("a\u202egnp.exe", "printed"),
        ("a\ud800", "printed"),
        (".htaccess", "hidden"),
        ("sub/.ssh/x", "hidden"),
        ("a//b", "empty"),
        ("a/ /b", "empty"),
        ("1/2/3/4/5/6/7/8/9/10", "levels"),
        ("x" * 201, "200 bytes"),
        ("ü" * 101, "200 bytes"),
        ("u\u0308.png", "NFC"),
    ],
)
def test_names_that_may_not(path: str, reason: str) -> None:
    fault = path_fault(path)
    assert fault is not None and reason in fault


def test_a_file_name_has_no_folders() -> None:
    assert name_fault("a.png") is None
    assert name_fault("sub/a.png") == "holds a slash"
    assert name_fault("x" * 201) is not None and name_fault("x" * 201, limit_bytes=255) is None


def test_annotations() -> None:
    assert split_annotation("a.png [output]") == ("a.png", "output")
    assert split_annotation("sub/a.png [temp]") == ("sub/a.png", "temp")
    assert split_annotation("a.png") == ("a.png", "input")
    assert split_annotation("a [b].png") == ("a [b].png", "input")


@given(any_text)
def test_an_accepted_path_stays_below_its_folder(path: str) -> None:
    if path_fault(path) is None:
        parts = path.split("/")
        assert all(part and part not in (".", "..") for part in parts) and not path.startswith("/")
        path.encode()
