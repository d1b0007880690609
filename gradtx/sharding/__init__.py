"""Devices: what each one stores, and the one that works on each matrix."""

from gradtx.sharding.cuts import Cut as Cut
from gradtx.sharding.cuts import Cuts as Cuts
from gradtx.sharding.cuts import cuts as cuts
from gradtx.sharding.owners import Owners as Owners
from gradtx.sharding.owners import owners as owners
from gradtx.sharding.state_shardings import state_shardings as state_shardings
from gradtx.sharding.zero import sharded as sharded
