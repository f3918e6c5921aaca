"""The variables of a launcher."""

import pytest

from polyvex.errors import RunError
from polyvex.processes import Processes, processes

GROUP = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_a_launcher_counts_its_processes() -> None:
    assert processes(GROUP) == Processes(rank=1, count=2)
    assert not processes(GROUP).first
    assert processes({**GROUP, "RANK": "0"}).first


@pytest.mark.parametrize("environment", [{}, {"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "1"}, {"LOCAL_RANK": "3"}])
def test_without_a_group_a_process_is_alone(environment: dict[str, str]) -> None:
    assert processes(environment) == Processes(rank=0, count=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"RANK": "abc"},
        {"RANK": ""},
        {"RANK": "-1"},
        {"RANK": "2"},
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "0"},
        {"LOCAL_RANK": "1.5"},
        {"RANK": None},
        {"LOCAL_RANK": None},
        {"MASTER_ADDR": None},
    ],
)
def test_variables_that_contradict_each_other_are_refused(changes: dict[str, str | None]) -> None:
    environment = {name: value for name, value in {**GROUP, **changes}.items() if value is not None}
    with pytest.raises(RunError) as caught:
        processes(environment)
    assert caught.value.code == "process-environment"
    assert next(iter(changes)) in str(caught.value)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(RunError, match=r"RANK is 'a'.*LOCAL_RANK is 'b'.*WORLD_SIZE is 'c'"):
        processes({"RANK": "a", "LOCAL_RANK": "b", "WORLD_SIZE": "c"})


def test_replicas_count_processes_and_devices() -> None:
    assert Processes(count=2).replicas == 2
    assert Processes(devices=4).replicas == 4
