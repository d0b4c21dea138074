"""Which number of clusters to take: what each score says, whether there is an elbow, and all of it as a text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from kmeans_dask.gap import Gaps

CLEAR: Final = 2.0  # times the bend that chance shows

ELBOW, SILHOUETTE, DAVIES_BOULDIN, CALINSKI_HARABASZ, GAP = RULES = (
    "elbow",
    "silhouette",
    "Davies-Bouldin",
    "Calinski-Harabasz",
    "gap statistic",
)


@dataclass(frozen=True, slots=True)
class Score:
    """One number of clusters: its best restart and how it scores; None where a score is not defined.

    silhouette: of the sample's rows; gap, gap_error, bend: see `gap.gaps`; chosen_by: the rules that would take it.
    """

    n_clusters: int
    inertia: float
    distortion: float
    n_iter: int
    restart: int
    seed: int
    smallest: int  # rows of the smallest cluster, and of the largest
    largest: int
    silhouette: float | None
    simplified_silhouette: float | None
    davies_bouldin: float | None
    calinski_harabasz: float | None
    gap: float
    gap_error: float
    bend: float | None
    chosen_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The number of clusters that most rules would take, whether the distortion has an elbow, and why."""

    n_clusters: int
    elbow: int | None
    why: str


def chosen(scores: Sequence[Score], gaps: Gaps) -> tuple[tuple[Score, ...], Choice]:
    """Return the scores, each with the rules that choose it, and the choice; scores are by increasing n_clusters.

    Most rules win; among equals the one with the elbow, the silhouette and so on in the order of `RULES`.
    """
    votes = {
        ELBOW: elbow_of(scores, gaps),
        SILHOUETTE: _extreme(scores, lambda score: score.silhouette),
        DAVIES_BOULDIN: _extreme(scores, lambda score: _negative(score.davies_bouldin)),
        CALINSKI_HARABASZ: _extreme(scores, lambda score: score.calinski_harabasz),
        GAP: gap_rule(scores),
    }
    found = {rule: k for rule, k in votes.items() if k is not None}
    first = {k: -list(found.values()).index(k) for k in found.values()}
    best = max(first, key=lambda k: (list(found.values()).count(k), first[k]), default=scores[0].n_clusters)
    marked = tuple(
        replace(score, chosen_by=tuple(rule for rule, k in found.items() if k == score.n_clusters))
        for score in scores
    )
    return marked, Choice(best, votes[ELBOW], _why(best, votes, scores, gaps))


def elbow_of(scores: Sequence[Score], gaps: Gaps) -> int | None:
    """Return where the gap bends most, if that is `CLEAR` times more than evenly spread rows bend by chance.

    The gap must be larger there than with fewer clusters: else these rows cluster no better than evenly spread ones.
    """
    bends = [(score.bend, -i) for i, score in enumerate(scores) if score.bend is not None]
    highest, at = max(bends, default=(0.0, 0))
    before = max([gaps.at_one, *(score.gap for score in scores[:-at])])
    clear = highest > CLEAR * gaps.noise and scores[-at].gap > before
    return scores[-at].n_clusters if clear and scores[-at].n_clusters > 1 else None


def gap_rule(scores: Sequence[Score]) -> int | None:
    """Return the first k whose gap is at least the next one's less its error (Tibshirani et al. 2001)."""
    return next((a.n_clusters for a, b in pairwise(scores) if a.gap >= b.gap - b.gap_error), None)


def _extreme(scores: Sequence[Score], value: Callable[[Score], float | None]) -> int | None:
    found = [(v, -score.n_clusters) for score in scores if (v := value(score)) is not None]
    return -max(found)[1] if found else None


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _why(best: int, votes: dict[str, int | None], scores: Sequence[Score], gaps: Gaps) -> str:
    """Return the choice in words."""
    others = {rule: k for rule, k in votes.items() if rule != ELBOW and k is not None}
    agree = [rule for rule, k in others.items() if k == best]
    sentences = [] if votes[ELBOW] == best else [_about_elbow(votes[ELBOW], scores, gaps)]
    if votes[ELBOW] == best:
        sentences.append(
            f"k = {best}: a clear elbow" + (f"; {_and(agree)} agree{_s(agree)}." if agree else ".")
        )
    elif agree:
        alone = "No two scores agree: " if len(set(others.values())) == len(others) > 1 else ""
        sentences.append(f"{alone}k = {best} is what {_and(agree)} say{_s(agree)}.")
    else:
        sentences.append(f"k = {best} is kept, the first one tried.")
    differ = {k: [rule for rule in others if others[rule] == k] for k in others.values() if k != best}
    if differ:
        said = "; ".join(f"{_and(rules)} say{_s(rules)} {k}" for k, rules in differ.items())
        sentences.append(f"{said[0].upper()}{said[1:]}.")
    if best == scores[-1].n_clusters:
        sentences.append("It is the largest number tried: try larger ones.")
    elif best == scores[0].n_clusters > 2:
        sentences.append("It is the smallest number tried: try smaller ones.")
    return " ".join(sentences)


def _about_elbow(elbow: int | None, scores: Sequence[Score], gaps: Gaps) -> str:
    if elbow is not None:
        return f"The elbow is at k = {elbow}."
    if max(score.gap for score in scores) <= gaps.at_one:
        return "No clear elbow: these rows cluster no better than rows spread evenly."
    return "No clear elbow: the distortion falls about as it does on rows spread evenly."


def _and(names: Sequence[str]) -> str:
    named = [f"the {name}" if name in (SILHOUETTE, GAP) else name for name in names]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) == 1 else ""
