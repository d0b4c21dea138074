"""Which worker holds which load, by bytes and threads."""

from collections.abc import Mapping
from dataclasses import dataclass

from kmeans_dask.errors import InfrastructureError

_KEEP_WITHIN = 1.25


@dataclass(frozen=True, slots=True)
class Host:
    """A worker's address, its threads, and the bytes it may hold; 0: no limit."""

    address: str
    n_threads: int
    memory_limit_bytes: int


def place(
    n_bytes: list[int], held: Mapping[int, str], hosts: list[Host], *, may_move: bool = True
) -> dict[int, str]:
    """Return each load's address: where it is held, else spread; loads move only off a worker well above its share.

    n_bytes: of each load; held: load -> address, for loads that exist; may_move: whether these may move.
    Raises InfrastructureError when the loads do not fit into the workers' memory.
    """
    total, threads = sum(n_bytes), sum(host.n_threads for host in hosts)
    share = {host.address: total * host.n_threads / threads for host in hosts}
    limit = {host.address: host.memory_limit_bytes or total + 1 for host in hosts}
    used = dict.fromkeys(share, 0)
    placed: dict[int, str] = {}
    for load, address in sorted(held.items()):
        if address in used and (
            not may_move
            or used[address] + n_bytes[load] <= min(limit[address], _KEEP_WITHIN * share[address] + 1)
        ):
            placed[load] = address
            used[address] += n_bytes[load]
    for load in range(len(n_bytes)):
        if load not in placed:
            address = _roomiest(n_bytes[load], used, share, limit)
            placed[load] = address
            used[address] += n_bytes[load]
    return placed


def _roomiest(n_bytes: int, used: dict[str, int], share: dict[str, float], limit: dict[str, int]) -> str:
    """Return the first worker still under its share, so that neighbours stay together; else the least loaded."""
    fitting = [address for address in used if used[address] + n_bytes <= limit[address]]
    if not fitting:
        raise InfrastructureError(
            f"the blocks need {sum(used.values()) + n_bytes:,} bytes or more; {len(limit)} workers hold "
            f"{sum(limit.values()):,}. Add workers or raise dask.memory_limit."
        )
    for address in fitting:
        if used[address] + n_bytes / 2 <= share[address]:
            return address
    return min(fitting, key=lambda address: used[address] / share[address])
