"""Several rankings into one: reciprocal-rank fusion.

Cosines and BM25 scores are not on one scale, ranks are: a passage earns `weight / (k + rank)` from
each ranking that lists it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from knowledge.lexical import WordIndex
from knowledge.opgraph import Frozen
from knowledge.passage import TagGroup
from knowledge.words import terms

# How far down a ranking can still matter; what is further adds next to nothing to a fused score.
DEEPEST = 100
# Five sections of one page tell less than sections of three; and on the queries to be tuned on, a
# second one of a wrong page costs more than one of the right page helps.
PASSAGES_OF_ONE_PAGE = 2

Ranks = Mapping[int, int]


class Fusion(Frozen):
    """How much each ranking says; a ranking of weight 0 is not made at all.

    The defaults were chosen on the two thirds of `benchmarks/retrieval_queries.yaml` that are there
    to be tuned on. `k` dampens the first ranks' lead.
    """

    dense: float = 1.0
    passages: float = 1.0
    pages: float = 1.0
    k: int = 5

    def scores(
        self,
        index: WordIndex,
        query: str,
        groups: Sequence[TagGroup],
        nearest: Callable[[int], Iterable[str]],
    ) -> dict[int, float]:
        """Each passage's score by its position in `index`, best first.

        Args:
            index: the passages' words and tags.
            query: in words.
            groups: of each a passage must carry a tag.
            nearest: the dense ranking, narrowed alike: so many passages' ids, nearest first.
        """
        allowed = index.allowed(groups)
        if not allowed.any():
            return {}
        words = terms(query)
        rankings: list[tuple[float, Ranks]] = []
        if self.passages:
            rankings.append((self.passages, index.rank_passages(words, allowed, DEEPEST)))
        if self.pages:
            rankings.append((self.pages, index.rank_pages(words, allowed, DEEPEST)))
        if self.dense:
            near = enumerate(nearest(DEEPEST), 1)
            ranks = {index.position[key]: rank for rank, key in near if key in index.position}
            rankings.append((self.dense, ranks))
        return merge(rankings, self.k)


def merge(rankings: Sequence[tuple[float, Ranks]], k: int) -> dict[int, float]:
    """The items' scores, best first; 1 for what is first in every ranking.

    Args:
        rankings: weight, and of each item its rank from 1.
        k: see `Fusion`.
    """
    most = sum(weight for weight, _ in rankings) / (k + 1)
    scores: defaultdict[int, float] = defaultdict(float)
    for weight, ranks in rankings:
        for item, rank in ranks.items():
            scores[item] += weight / (k + rank) / most
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def best_of_pages(scores: Iterable[int], index: WordIndex, k: int) -> list[int]:
    """The best passage of each of the first `k` pages, in the order of `scores`.

    Where there are fewer pages than that, second passages fill the places that are left.
    """
    ranked = list(scores)
    taken: Counter[int] = Counter()
    firsts: list[int] = []
    more: list[int] = []
    for at in ranked:
        subject = int(index.subjects[at])
        taken[subject] += 1
        if taken[subject] <= PASSAGES_OF_ONE_PAGE:
            (firsts if taken[subject] == 1 else more).append(at)
    chosen = {*firsts[:k], *more[: max(0, k - len(firsts))]}
    return [at for at in ranked if at in chosen]
