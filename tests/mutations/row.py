"""What a row of the mutations says."""

from typing import NamedTuple


class Mutation(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: str


ORACLES = "tests/oracles/test_oracles.py tests/oracles/test_parity.py -k {}"
