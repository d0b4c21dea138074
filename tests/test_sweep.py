"""Choosing k: the published rules on sets whose answer is known, and the same bits on any blocks."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kmeans_dask import blocks_of, choose_k, kmeans
from kmeans_dask.choice import RULES, Score, chosen
from kmeans_dask.choosing import ChosenK
from kmeans_dask.elbow_picture import elbow_svg
from kmeans_dask.errors import ConfigError, TooFewSamplesError
from kmeans_dask.gap import Gaps, gaps, reference
from kmeans_dask.restarts import Settings, concurrently
from kmeans_dask.samples import sampled
from kmeans_dask.sweep import Sweep, swept
from tests.blockings import blocked

SVG = "{http://www.w3.org/2000/svg}"


def features(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    names = [name for name in table.column_names if name != "label"]
    return np.column_stack([table[name].to_numpy() for name in names]).astype(np.float64)


def clouds(k: int, n: int = 600, seed: int = 0, spread: float = 0.04) -> np.ndarray:
    """Return rows around k points of a grid."""
    rng = np.random.default_rng(seed)
    points = np.array([(i % 4, i // 4) for i in range(k)], np.float64)
    return points[rng.integers(k, size=n)] + spread * rng.normal(size=(n, 2))


def sweep_of(
    X: np.ndarray, ks: Sequence[int], cuts: Sequence[int] = (), n_threads: int = 1, init: str = "k-means||"
) -> Sweep:
    with blocked(X, cuts, n_threads=n_threads) as blocks:
        restarts = concurrently(lambda progress: None, n_threads)
        return swept(
            blocks, Settings(0, init, n_init=2, seed=5), ks, restarts, lambda name, fn, *args: fn(*args)
        )


@pytest.mark.parametrize(
    ("name", "k", "most"), [("sipu_s1", 15, 20), ("sipu_r15", 15, 20), ("ruspini", 4, 10), ("xclara", 3, 10)]
)
def test_known_sets_have_their_elbow(shared_data: Path, name: str, k: int, most: int) -> None:
    """The elbow is where the sets' authors put it, and at least three other rules agree."""
    found = choose_k(features(shared_data / f"{name}.parquet"), range(2, most + 1))
    assert (found.n_clusters, found.sweep.choice.elbow) == (k, k)
    assert found.why.startswith(f"k = {k}: a clear elbow; the silhouette, Davies-Bouldin")
    assert found.model.n_clusters == k


@pytest.mark.parametrize(("n", "d", "stretch"), [(300, 2, 1.0), (1000, 2, 10.0), (500, 5, 1.0)])
def test_noise_has_no_elbow(n: int, d: int, stretch: float) -> None:
    """Uniform rows, in a square, an oblong or a box of five features, have no clear elbow, and the text says so."""
    X = np.random.default_rng(n).random((n, d)) * ([stretch] + [1.0] * (d - 1))
    found = choose_k(X, range(1, 11), n_init=3)
    assert found.sweep.choice.elbow is None
    assert found.why.startswith("No clear elbow: ")


def test_one_bell_is_no_cluster_among_others() -> None:
    """A single normal cloud bends against uniform rows, but clusters no better than they do: no elbow."""
    found = choose_k(np.random.default_rng(0).normal(size=(1000, 2)), range(2, 9), n_init=3)
    assert found.why.startswith("No clear elbow: these rows cluster no better than rows spread evenly.")


def test_an_elbow_between_numbers_far_apart() -> None:
    """With k in steps the elbow is at the number tried next to the clusters, one tried alone included."""
    X = clouds(8)
    assert choose_k(X, (2, 4, 8, 12, 16), n_init=3).sweep.choice.elbow == 8
    assert choose_k(X, (16, 8, 2), n_init=3).n_clusters == 8


def test_blocks_and_threads_change_no_bit() -> None:
    """Scores, text, picture and every centroid are those of one block on one thread."""
    X = clouds(5, 900)
    one = sweep_of(X, (2, 3, 5, 7))
    for cuts, threads in (((0, 1, 400, 900), 3), ((0, 128, 129, 500, 900), 2)):
        other = sweep_of(X, (2, 3, 5, 7), cuts, threads)
        assert (other.scores, other.choice) == (one.scores, one.choice)
        assert elbow_svg(other) == elbow_svg(one)
        assert [fit.centroids.tobytes() for fit in other.fits] == [
            fit.centroids.tobytes() for fit in one.fits
        ]


@pytest.mark.parametrize("init", ["random", "k-means||"])
def test_every_restart_of_every_k_is_there(init: str) -> None:
    """Fits are by k and restart, with the seeds that a job with that k alone would have."""
    sweep = sweep_of(clouds(4), (2, 4, 6), init=init)
    assert [(len(fit.sizes), fit.restart) for fit in sweep.fits] == [
        (k, r) for k in (2, 4, 6) for r in (0, 1)
    ]
    assert len({fit.seed for fit in sweep.fits}) == 2
    assert {p.n_clusters for fit in sweep.fits for p in fit.history} == {2, 4, 6}
    assert [fit.inertia for fit in sweep.best_fits] == [
        min(fit.inertia for fit in sweep.fits if len(fit.sizes) == k) for k in (2, 4, 6)
    ]


def test_random_starts_are_those_of_single_runs() -> None:
    """Random rows drawn once for the largest k begin with those of every smaller one: the same models."""
    X = clouds(4, 500)
    found = choose_k(X, (2, 5, 9), init="random", n_init=3, seed=8)
    for k, model in found.models.items():
        alone = kmeans(X, k, init="random", n_init=3, seed=8)
        assert model.centroids.tobytes() == alone.centroids.tobytes()


def test_more_clusters_than_distinct_rows() -> None:
    """Sweeping past the number of distinct rows ends, with the elbow at that number."""
    X = np.repeat(clouds(4, 4, spread=0.3), 25, axis=0)
    found: ChosenK = choose_k(X, range(1, 7), n_init=2)
    distinct = len(np.unique(X, axis=0))
    assert found.models[distinct].inertia == pytest.approx(0, abs=1e-20)
    assert found.sweep.choice.elbow == distinct


def test_gaps_worked_by_hand() -> None:
    """Two references, ks 2 and 4: means and deviations of logarithms, slopes per cluster."""
    e = math.e
    found = gaps((2, 4), np.array([e**3, e**1, e**0]), np.array([[e**4, e**3, e**2], [e**4, e**1, e**2]]))
    assert found.at_one == pytest.approx(1)
    assert found.values == pytest.approx([1, 2])
    assert found.errors == pytest.approx([math.sqrt(1.5), 0])
    assert found.bends[0] == pytest.approx((1 - 1) / 1 - (2 - 1) / 2)
    assert np.isnan(found.bends[1])
    # Against the other, the references' gaps at 1, 2, 4 are 0, -2, 0 and 0, 2, 0.
    assert found.noise == pytest.approx(2 / 1 + 2 / 2)


def test_references_are_uniform_over_the_samples_box() -> None:
    """One cluster's distortion is that of a box: the sum of squared sides over 12; another index, another set."""
    X = np.random.default_rng(3).random((2000, 3)) ** 2 * [1, 2, 5]
    with blocked(X) as blocks:
        sample = sampled(blocks, 2000, seed=0)
    a, b = (reference(sample, (2,), seed=4, index=index) for index in (0, 1))
    assert a.tolist() == reference(sample, (2,), seed=4, index=0).tolist()
    assert a.tolist() != b.tolist()
    sides = np.ptp(X, axis=0)
    assert a[0] == pytest.approx(np.square(sides).sum() / 12, rel=0.1)  # the deviation of 2,000 rows is 2%


def score(
    k: int, silhouette: float | None, index: float, variance: float, gap: float, bend: float | None
) -> Score:
    return Score(
        n_clusters=k, inertia=1.0, distortion=1.0, n_iter=1, restart=0, seed=0, smallest=1, largest=1,
        silhouette=silhouette, simplified_silhouette=silhouette, davies_bouldin=index,
        calinski_harabasz=variance, gap=gap, gap_error=0.1, bend=bend,
    )  # fmt: skip


def test_most_rules_win_and_the_text_names_the_others() -> None:
    """Three of five choose 3; the elbow and the gap, which differ, are told."""
    scores = [
        score(2, 0.5, 0.9, 10, 1.0, 0.9),
        score(3, 0.6, 0.5, 30, 1.3, 0.1),
        score(4, 0.4, 0.7, 20, 1.7, 0.1),
        score(5, 0.4, 0.7, 20, 1.7, None),
    ]
    marked, choice = chosen(scores, Gaps(np.ones(4), np.ones(4), np.ones(4), 0.5, 0.2))
    assert choice.n_clusters == 3
    assert choice.elbow == 2
    assert choice.why == (
        "The elbow is at k = 2. k = 3 is what the silhouette, Davies-Bouldin and Calinski-Harabasz say. "
        "The gap statistic says 4."
    )
    assert [s.chosen_by for s in marked] == [("elbow",), RULES[1:4], ("gap statistic",), ()]


def test_scores_of_which_no_two_agree() -> None:
    """A number that one score alone names is told as such."""
    scores = [
        score(2, 0.5, 0.9, 30, 1.0, 0.0),
        score(3, 0.6, 0.8, 20, 1.3, 0.1),
        score(4, 0.4, 0.7, 10, 1.2, 0.1),
        score(5, 0.4, 0.9, 10, 2.0, None),
    ]
    assert chosen(scores, Gaps(np.ones(4), np.ones(4), np.ones(4), 0.5, 0.2))[1].why == (
        "No clear elbow: the distortion falls about as it does on rows spread evenly. "
        "k = 3 is what the silhouette and the gap statistic say. Davies-Bouldin says 4; Calinski-Harabasz says 2."
    )
    rising = [replace(one, gap=gap) for one, gap in zip(scores, (1.0, 1.3, 1.5, 1.7), strict=True)]
    assert chosen(rising, Gaps(np.ones(4), np.ones(4), np.ones(4), 0.5, 0.2))[1].why.endswith(
        "No two scores agree: k = 3 is what the silhouette says. Davies-Bouldin says 4; Calinski-Harabasz says 2."
    )


def test_a_choice_at_the_small_end_says_so() -> None:
    """Three clouds swept from 6 on: all that the scores can say is that fewer clusters are to be tried."""
    found = choose_k(clouds(3), (6, 8, 10), n_init=2)
    assert found.n_clusters == 6
    assert found.why.endswith("It is the smallest number tried: try smaller ones.")
    assert "smallest" not in choose_k(clouds(2), (2, 3, 4), n_init=2).why


def test_the_elbow_breaks_ties_and_the_largest_k_is_told() -> None:
    """Of two numbers with as many rules, the elbow's is taken; a choice at the end of the range says so."""
    scores = [
        score(2, 0.9, 0.1, 10, 1.0, 0.0),
        score(3, 0.6, 0.5, 30, 2.0, 0.9),
        score(4, 0.4, 0.7, 20, 3.0, None),
    ]
    one = Gaps(np.ones(3), np.ones(3), np.ones(3), 0.5, 0.2)
    assert chosen(scores, one)[1].n_clusters == 3
    rising = [score(2, 0.1, 0.9, 10, 1.0, 0.0), score(3, 0.6, 0.5, 30, 2.0, None)]
    assert chosen(rising, one)[1].why == (
        "No clear elbow: the distortion falls about as it does on rows spread evenly. "
        "k = 3 is what the silhouette, Davies-Bouldin and Calinski-Harabasz say. "
        "It is the largest number tried: try larger ones."
    )


def test_the_picture_shows_every_score() -> None:
    """A dot for every value, the choice banded in five panels, an error bar of three lines for every gap, no links."""
    found = choose_k(clouds(4), range(1, 8), n_init=2)
    picture = found.svg()
    root = ET.fromstring(picture)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {
        "k = 4, a clear elbow",
        "Distortion",
        "Gap statistic with error bars",
        "number of clusters k",
    } <= set(words)
    assert (
        len(root.findall(f"{SVG}circle")) == 1 + 7 + 7 + 3 * 6
    )  # the legend's; no silhouette and indices at k = 1
    assert [line.get("stroke-width") for line in root.iter(f"{SVG}line")].count("1.5") == 3 * 7
    marks = [c for c in root.iter(f"{SVG}circle") if c.get("r") == "5.5"]
    assert len(marks) == 1 + sum(len(s.chosen_by) for s in found.sweep.scores)
    assert picture.count(b"http") == 1  # the name of the format
    assert len(picture) < 40_000


@pytest.mark.parametrize("given", [[3], [2, 2], [0, 2], [2, 3.5], [], ["2", "3"], 5, None])
def test_bad_numbers_are_refused_with_what_was_given(given: list[int]) -> None:
    """One number, also by itself, repeated ones, ones below 1 and fractions."""
    with pytest.raises(ConfigError, match="two or more different whole numbers of at least 1; found"):
        choose_k(clouds(2, 20), given)


def test_what_else_is_refused() -> None:
    """Starts that fit one number alone, and more clusters than rows."""
    with pytest.raises(ConfigError, match="cannot start from given centroids"):
        choose_k(clouds(2, 20), [2, 3], init=np.zeros((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed must be"):
        choose_k(clouds(2, 20), [2, 3], seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n_threads must be"):
        choose_k(clouds(2, 20), [2, 3], n_threads=-1)
    with pytest.raises(ConfigError, match="preparation belongs to blocks"):
        choose_k(clouds(2, 20), [2, 3], preparation=blocks_of(clouds(2, 20))[1])
    with pytest.raises(TooFewSamplesError, match="n_clusters=21 needs at least 21 rows; the data hold 20"):
        choose_k(clouds(2, 20), [2, 21])
