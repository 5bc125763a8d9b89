"""What a plan promises: it is decided by its seed, and it has everything in it."""

from tests.chaos.plan import Ask, Fault, Settle, Step, Strike, make


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


def test_without_a_disk_other_faults_take_its_place() -> None:
    faults = faults_of(make(7, 300, 61, disk=False))
    assert len(faults) == 61
    assert all(fault.target != "disk" for fault in faults)


def test_some_stops_last_until_a_worker_is_replaced_and_a_link_is_given_up() -> None:
    stops = [fault for fault in faults_of(make(7, 300, 400)) if fault.how == "stop"]
    assert {fault.target for fault in stops if fault.seconds >= 12} == {fault.target for fault in stops}
    assert sum(fault.seconds >= 12 for fault in stops) < len(stops) / 3


def test_most_texts_are_greedy_and_some_are_drawn_by_chance() -> None:
    asks = [step for step in make(7, 300, 0) if isinstance(step, Ask) and step.form == "text"]
    drawn = [ask.fields["temperature"] for ask in asks].count(1)
    assert len(asks) / 8 < drawn < len(asks) / 2


def faults_of(steps: list[Step]) -> list[Fault]:
    return [fault for step in steps if isinstance(step, Strike) for fault in step.faults]
