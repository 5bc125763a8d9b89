"""Whether the installed distributions fit each other."""

import pytest

from agent.hardware.packages import Package, installed, misfits

_ENGINE = {"onnxruntime-genai": Package("0.18.0", ("numpy>=1.21.6", "onnxruntime>=1.31.0"))}
_NEEDS = "onnxruntime-genai 0.18.0 needs onnxruntime 1.31.0"
_REMEDY = "`pip install 'onnxruntime>=1.31.0'`"


def test_what_is_installed_here_fits() -> None:
    assert misfits(installed()) == ()


def test_without_an_engine_it_is_said_what_to_install() -> None:
    (sentence,) = misfits({"onnxruntime": Package("1.32.0")})
    assert sentence.endswith("is not installed: `pip install 'edge-slm-agent[cpu]'`")


@pytest.mark.parametrize(
    ("first", "second", "extra"),
    [
        ("onnxruntime", "onnxruntime-gpu", "cuda"),
        ("onnxruntime-genai", "onnxruntime-genai-cuda", "cuda"),
        ("onnxruntime", "onnxruntime-openvino", "cpu"),
        ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu12", "cpu"),
    ],
)
def test_two_that_share_their_files_are_told_with_the_remedy(first: str, second: str, extra: str) -> None:
    packages = {"onnxruntime-genai": Package("0.18.0"), first: Package("1"), second: Package("1")}
    (sentence,) = misfits(packages)
    assert sentence.startswith(
        f"{first} and {second} overwrite each other's files: `pip uninstall -y onnxruntime-genai "
    )
    assert {first, second} <= {*sentence.split("`")[1].split()}
    assert sentence.endswith(f"`pip install 'edge-slm-agent[{extra}]'`")


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("1.31.0", None),
        ("1.32.0rc1", None),
        ("2.0", None),
        ("1.9.1", f"{_NEEDS} or newer, and 1.9.1 is installed: {_REMEDY}"),
    ],
)
def test_a_runtime_that_is_too_old_is_told_with_the_remedy(version: str, sentence: str | None) -> None:
    assert misfits({**_ENGINE, "onnxruntime": Package(version)}) == (() if sentence is None else (sentence,))


def test_a_runtime_that_is_missing_is_told_with_the_remedy() -> None:
    (sentence,) = misfits(_ENGINE)
    assert sentence == f"{_NEEDS} or newer, which is not installed: {_REMEDY}"
