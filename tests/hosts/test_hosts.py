"""Two processes of four devices train as one of eight, and as one device."""

import numpy as np
import pytest

from tests.hosts.cases import CASES, STEPS, join, run
from tests.hosts.processes import DEVICES, run_processes
from tests.hosts.questions import QUESTIONS

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[Arrays]:
    """What each process computed, for all cases: processes start once."""
    return run_processes(tmp_path_factory.mktemp("hosts"))


def results(processes: list[Arrays], name: str) -> list[Arrays]:
    """The shards of a case, by process."""
    for process in processes:
        assert f"{name}|error" not in process, str(process[f"{name}|error"])
    return [
        {key.split("|")[1]: array for key, array in one.items() if key.split("|")[0] == name}
        for one in processes
    ]


@pytest.mark.parametrize("name", sorted(CASES))
def test_processes_agree_bit_for_bit(processes: list[Arrays], name: str) -> None:
    first, second = results(processes, name)
    common = first.keys() & second.keys()
    assert f"losses[0:{STEPS}]" in common and "state/count[]" in common
    for key in common:
        assert first[key].tobytes() == second[key].tobytes(), key


@pytest.mark.parametrize("name", sorted(name for name in CASES if CASES[name].exact))
def test_two_processes_have_the_bits_of_one(processes: list[Arrays], name: str) -> None:
    """The loss itself has roundings, in the order of the sums over devices."""
    first, second = results(processes, name)
    two, one = join(first | second), join(run(CASES[name], DEVICES))
    assert two.keys() == one.keys()
    for path, expected in one.items():
        if path != "losses":
            assert two[path].tobytes() == expected.tobytes(), path


@pytest.mark.parametrize("name", sorted(CASES))
def test_two_processes_compute_as_one_device(processes: list[Arrays], name: str) -> None:
    first, second = results(processes, name)
    two, one = join(first | second), join(run(CASES[name], 1))
    tolerance = 1e-10 if CASES[name].float64 else 1e-5  # of the largest entry
    assert two.keys() == one.keys()
    for path, expected in one.items():
        largest = np.nanmax(np.abs(expected)) if np.isfinite(expected).any() else 0
        np.testing.assert_allclose(
            two[path], expected, rtol=0, atol=tolerance * largest, err_msg=path
        )


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_check_hosts_says_the_same_on_every_process(processes: list[Arrays], name: str) -> None:
    for shards in results(processes, name):
        assert str(shards["text"]) == QUESTIONS[name][1]
