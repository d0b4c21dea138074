"""Which worker holds which load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmeans_dask.errors import InfrastructureError
from kmeans_dask.placement import Host, place

TWO = [Host("a", 1, 0), Host("b", 1, 0)]


def bytes_of(n_bytes: list[int], placed: dict[int, str]) -> dict[str, int]:
    return {address: sum(n_bytes[i] for i in placed if placed[i] == address) for address in placed.values()}


def test_neighbours_share_a_worker() -> None:
    """Loads are spread by bytes, each worker taking a run of neighbours."""
    assert place([10] * 6, {}, TWO) == {0: "a", 1: "a", 2: "a", 3: "b", 4: "b", 5: "b"}
    assert place([30, 10, 10, 10], {}, TWO) == {0: "a", 1: "b", 2: "b", 3: "b"}


def test_threads_weigh() -> None:
    """A worker of three threads takes three times what one of a single thread takes."""
    placed = place([1] * 8, {}, [Host("a", 3, 0), Host("b", 1, 0)])
    assert bytes_of([1] * 8, placed) == {"a": 6, "b": 2}


def test_held_loads_stay() -> None:
    """Loads stay where they are held, in any order, when no worker holds much more than its share."""
    held = {0: "b", 1: "a", 2: "b", 3: "a"}
    assert place([10] * 4, held, TWO) == held


def test_a_fresh_worker_gets_its_share() -> None:
    """After a loss the lost loads go to the fresh worker, and none that is held moves."""
    held = {0: "a", 1: "a"}
    assert place([10] * 4, held, TWO) == {0: "a", 1: "a", 2: "b", 3: "b"}


def test_a_survivor_that_holds_everything_gives_half() -> None:
    """One worker that held all loads keeps about its share, and the rest move to the fresh one."""
    placed = place([10] * 16, dict.fromkeys(range(16), "a"), TWO)
    assert bytes_of([10] * 16, placed)["b"] >= 60


def test_loads_that_may_not_move_stay() -> None:
    """What one worker holds stays there, however much, and the other takes the rest."""
    placed = place([10] * 8, dict.fromkeys(range(6), "a"), TWO, may_move=False)
    assert placed == dict.fromkeys(range(6), "a") | dict.fromkeys((6, 7), "b")


def test_loads_of_a_worker_that_is_gone_are_placed_anew() -> None:
    """What only a missing worker held is spread over those that are there."""
    placed = place([10] * 4, dict.fromkeys(range(4), "gone"), TWO)
    assert bytes_of([10] * 4, placed) == {"a": 20, "b": 20}


def test_no_worker_beyond_its_memory() -> None:
    """A small worker takes only what fits, though its share would be larger."""
    placed = place([10] * 4, {}, [Host("a", 1, 15), Host("b", 1, 100)])
    assert bytes_of([10] * 4, placed) == {"a": 10, "b": 30}


def test_too_little_memory_is_refused() -> None:
    """Loads beyond the memory of all workers are refused, with both numbers and the fix."""
    with pytest.raises(InfrastructureError, match=r"40 bytes or more; 2 workers hold 35.*memory_limit"):
        place([10] * 4, {}, [Host("a", 1, 15), Host("b", 1, 20)])


HOSTS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(1, 4)), min_size=1, unique_by=lambda h: h[0]
)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=40),
    HOSTS,
    st.dictionaries(st.integers(0, 39), st.sampled_from("abcdefx")),
)
def test_every_load_has_one_place_near_the_shares(
    n_bytes: list[int], workers: list[tuple[str, int]], held: dict[int, str]
) -> None:
    """Whatever is held, every load lies on a worker that is there, and none is far above its share."""
    hosts = [Host(address, threads, 0) for address, threads in workers]
    placed = place(n_bytes, {i: a for i, a in held.items() if i < len(n_bytes)}, hosts)
    assert sorted(placed) == list(range(len(n_bytes)))
    assert set(placed.values()) <= {host.address for host in hosts}
    threads = sum(host.n_threads for host in hosts)
    for host in hosts:
        share = sum(n_bytes) * host.n_threads / threads
        # A quarter above the share may stay; a last load may lie across the border.
        assert bytes_of(n_bytes, placed).get(host.address, 0) <= 1.25 * share + max(n_bytes) + 1
