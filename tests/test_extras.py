"""The extras: each brings one engine, and has wheels where it is said to. `scripts/resolve-extras` resolves them."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from packaging.requirements import Requirement

from agent.hardware.choice import PROVIDERS
from tests.resolving import ARCHITECTURES, BASE, EXTRAS, PYTHONS, WITHOUT_WHEELS, Machine, resolve

ENGINES = {"onnxruntime-genai", "onnxruntime-genai-cuda"}
PROVIDER_EXTRAS = sorted({"cpu"} | {provider.extra for provider in PROVIDERS if provider.extra})


def names(requirements: Iterable[str]) -> set[str]:
    return {Requirement(each).name for each in requirements}


def reached() -> bool:
    try:
        return bool(resolve(["pip"], Machine(ARCHITECTURES[0], PYTHONS[0])))
    except LookupError:
        return False


def test_every_provider_that_can_be_had_has_an_extra() -> None:
    assert sorted(EXTRAS.keys() - {"demo"}) == PROVIDER_EXTRAS


def test_an_extra_is_the_only_way_to_an_engine_and_brings_one() -> None:
    assert not names(BASE) & ENGINES
    assert [len(names(EXTRAS[extra]) & ENGINES) for extra in PROVIDER_EXTRAS] == [1] * len(PROVIDER_EXTRAS)


@pytest.mark.parametrize("provider", [each for each in PROVIDERS if each.extra], ids=lambda each: each.name)
def test_an_extra_brings_what_its_provider_asks_for(provider: object) -> None:
    assert names(EXTRAS[provider.extra]) & {*provider.packages}  # type: ignore[attr-defined]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_extra_can_be_installed_with_all_that_it_needs(architecture: str) -> None:
    # Those of one engine together: what can be had at once can be had alone. And for the newest Python, which has its
    # wheels last; `scripts/resolve-extras` asks for each extra and each Python.
    machine = Machine(architecture, PYTHONS[-1])
    families: dict[frozenset[str], set[str]] = {}
    for extra in PROVIDER_EXTRAS:
        if (extra, architecture) not in WITHOUT_WHEELS:
            engine = frozenset(names(EXTRAS[extra]) & ENGINES)
            families.setdefault(engine, set()).update(EXTRAS[extra])
    try:
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(partial(resolve, machine=machine), families.values()))
    except LookupError as error:
        if not reached():
            pytest.skip(f"no package index can be reached: {error}")
        raise

    assert [names(wanted) - each.keys() for wanted, each in zip(families.values(), found, strict=True)] == [set()] * 2
