"""Devices: who works on which matrix."""

from gradtx.sharding.owners import Owners as Owners
from gradtx.sharding.owners import owners as owners
