"""What a plan promises: it is decided by its seed, and it has everything in it."""

from tests.chaos.plan import Ask, Settle, Strike, make


def test_the_same_seed_makes_the_same_plan() -> None:
    assert make(7, 300, 60) == make(7, 300, 60)


def test_another_seed_makes_another_plan() -> None:
    assert make(7, 300, 60) != make(8, 300, 60)


def test_a_plan_has_as_many_jobs_and_faults_as_asked_for() -> None:
    steps = make(7, 300, 61)
    asks = [step for step in steps if isinstance(step, Ask)]
    faults = [fault for step in steps if isinstance(step, Strike) for fault in step.faults]
    assert (len({ask.key for ask in asks}), len(faults)) == (300, 61)


def test_sixteen_faults_of_the_first_part_are_of_fifteen_kinds() -> None:
    steps = make(7, 60, 22)
    before = steps[: next(number for number, step in enumerate(steps) if isinstance(step, Settle))]
    faults = [fault for step in before if isinstance(step, Strike) for fault in step.faults]
    assert len({fault[:2] for fault in faults}) == 15


def test_faults_together_have_different_targets() -> None:
    together = [step.faults for step in make(7, 300, 200) if isinstance(step, Strike) and len(step.faults) > 1]
    assert together
    assert all(len({fault.target for fault in faults}) == len(faults) for faults in together)


def test_the_agent_lives_through_the_last_part() -> None:
    steps = make(7, 300, 200)
    after = steps[next(number for number, step in enumerate(steps) if isinstance(step, Settle)) :]
    faults = {(fault.target, fault.how) for step in after if isinstance(step, Strike) for fault in step.faults}
    assert faults
    assert not faults & {("agent", "kill"), ("agent", "restart")}
