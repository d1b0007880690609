"""Devices: the one that works on each matrix."""

from gradtx.sharding.owners import Owners as Owners
from gradtx.sharding.owners import owners as owners
