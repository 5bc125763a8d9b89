"""The extras: each brings one engine, and has wheels where it is said to. `scripts/resolve-extras` resolves them."""

from collections.abc import Iterable

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
        return bool(resolve(["pip"], Machine(ARCHITECTURES[0], PYTHONS[0]), dependencies=False))
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
def test_every_wheel_that_an_extra_names_is_there(architecture: str) -> None:
    # For the newest Python, which has them last. The script asks for every one, and for what the wheels need.
    machine = Machine(architecture, PYTHONS[-1])
    extras = [extra for extra in PROVIDER_EXTRAS if (extra, architecture) not in WITHOUT_WHEELS]
    wanted = {requirement for extra in extras for requirement in EXTRAS[extra]}
    try:
        found = resolve(wanted, machine, dependencies=False)
    except LookupError as error:
        if not reached():
            pytest.skip(f"no package index can be reached: {error}")
        raise

    assert found.keys() == names(wanted)
