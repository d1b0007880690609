"""Devices: the one that works on each matrix, and where each array of a state lies."""

from gradtx.sharding.owners import Owners as Owners
from gradtx.sharding.owners import owners as owners
from gradtx.sharding.state_shardings import state_shardings as state_shardings
