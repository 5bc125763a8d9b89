"""Whether the installed distributions fit each other."""

import pytest

from agent.hardware.packages import Package, installed, misfits, remedy

_ENGINE = {"onnxruntime-genai": Package("0.18.0", ("numpy>=1.21.6", "onnxruntime>=1.31.0"))}
_NEEDS = "onnxruntime-genai 0.18.0 needs onnxruntime 1.31.0"
_REMEDY = remedy("cpu")


def test_what_is_installed_here_fits() -> None:
    assert misfits(installed()) == ()


def test_without_an_engine_it_is_said_what_to_install() -> None:
    (sentence,) = misfits({"onnxruntime": Package("1.32.0")})
    assert sentence.endswith(f"is not installed: {remedy('cpu')}")


@pytest.mark.parametrize(
    ("first", "second", "extra"),
    [
        ("onnxruntime", "onnxruntime-gpu", "cuda"),
        ("onnxruntime-genai", "onnxruntime-genai-cuda", "cuda"),
        ("onnxruntime", "onnxruntime-openvino", "cpu"),
        ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu12", "tensorrt-rtx"),
    ],
)
def test_two_that_share_their_files_are_told_with_the_remedy(first: str, second: str, extra: str) -> None:
    packages = {"onnxruntime-genai": Package("0.18.0"), first: Package("1"), second: Package("1")}
    (sentence,) = misfits(packages)
    assert sentence == f"{first} and {second} overwrite each other's files: {remedy(extra)}"


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("1.31.0", None),
        ("1.31", None),
        ("1.32.0rc1", None),
        ("2.0", None),
        ("1.9.1", f"{_NEEDS} or newer, and onnxruntime 1.9.1 is installed: {_REMEDY}"),
    ],
)
def test_a_runtime_that_is_too_old_is_told_with_the_remedy(version: str, sentence: str | None) -> None:
    assert misfits({**_ENGINE, "onnxruntime": Package(version)}) == (() if sentence is None else (sentence,))


def test_a_runtime_that_is_missing_is_told_with_the_remedy() -> None:
    (sentence,) = misfits(_ENGINE)
    assert sentence == f"{_NEEDS} or newer, which is not installed: {_REMEDY}"


def test_a_plugin_takes_any_build_of_the_runtime() -> None:
    plugin = Package("2.7.0", ("onnxruntime>=1.24.2",))
    cuda = {"onnxruntime-genai-cuda": Package("0.18.0"), "onnxruntime-gpu": Package("1.31.1")}
    assert misfits({**cuda, "onnxruntime-qnn": plugin}) == ()
