"""PR-DARTS' pools: pruning, parents, re-admission, similarity."""

from collections import Counter

import pytest
import torch

from builders import FIRST, conv
from common.networks.genotype import Op
from pr_darts.morphisms import SPACES, is_convolution, morphisms, reachable
from pr_darts.pools import Pool, prune, replenish
from pr_darts.similarity import alike, discovered, distribution, similarity

DL = SPACES["dl"]
MAX, AVG, SKIP, CONV = FIRST


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_worst_are_pruned_in_order():
    pool = Pool.first((MAX, AVG, SKIP, CONV))
    left = prune(pool, [0.3, 0.1, 0.25, 0.35], 3)
    assert left == Pool((MAX, SKIP, CONV), (MAX, AVG, SKIP, CONV))
    assert prune(pool, [0.25] * 4, 3).candidates == (MAX, AVG, CONV)  # ties keep the earlier
    assert prune(pool, [0.3, 0.1, 0.25, 0.35], 9) == pool  # a ragged one may be smaller


def test_the_best_convolution_is_kept():
    pool = Pool.first((conv(3), MAX, conv(5), SKIP, AVG))
    assert prune(pool, [0.1, 0.3, 0.15, 0.25, 0.2], 3).candidates == (MAX, conv(5), SKIP)
    assert prune(pool, [0.1, 0.3, 0.15, 0.25, 0.2], 1).candidates == (conv(5),)


def test_children_are_new_morphisms_of_survivors():
    pool = Pool((MAX, conv(3), conv(5)), (MAX, AVG, SKIP, conv(3), conv(5), conv(7)))
    weights = {MAX: 0.5, conv(3): 0.3, conv(5): 0.2}
    for seed in range(30):
        after, parents = replenish(pool, weights, 3, DL, generator(seed))
        assert after.candidates == (*pool.candidates, *parents) and len(parents) == 3
        assert after.tried == (*pool.tried, *parents)
        for child, parent in parents.items():
            assert child in morphisms(parent, DL) and parent in pool.candidates
            assert child not in pool.tried


def test_a_child_of_this_cycle_is_no_parent():
    pool = Pool.first((CONV,))  # of it come four, of its children more
    for seed in range(20):
        _, parents = replenish(pool, {CONV: 1.0}, 4, SPACES["ur"], generator(seed))
        assert set(parents.values()) == {CONV} and len(parents) == 4


def test_parents_by_weight_and_their_morphisms_uniformly():
    """Compared with the paper's procedure, which draws again until a child is new."""
    space, few, many = SPACES["ur"], conv(1), conv(5, 1, 1)  # of two morphisms, of five
    pool = Pool((SKIP, few, many), (SKIP, few, many, conv(3)))
    weights = {SKIP: 0.4, few: 0.4, many: 0.2}
    drawn, rejected, rng, count = Counter(), Counter(), generator(5), 1000
    for _ in range(count):
        _, parents = replenish(pool, weights, 1, space, rng)
        drawn.update(parents.items())
        while True:
            chances = torch.tensor([weights[op] for op in pool.candidates])
            parent = pool.candidates[int(torch.multinomial(chances, 1, generator=rng))]
            options = morphisms(parent, space)
            if not options:
                continue
            child = options[int(torch.randint(len(options), (), generator=rng))]
            if child not in pool.tried:
                rejected[child, parent] += 1
                break
    assert drawn.keys() == rejected.keys() and len(drawn) == 6
    assert len(morphisms(few, space)) == 2 and len(morphisms(many, space)) == 5
    for pair in drawn:
        assert abs(drawn[pair] - rejected[pair]) < 4 * (2 * drawn[pair]) ** 0.5


def test_a_pruned_candidate_is_readmitted_only_when_nothing_new_is_left():
    every = tuple(sorted((op for op in reachable(FIRST, DL, 5) if is_convolution(op)), key=str))
    news = morphisms(conv(5), DL)
    assert len(news) == 4
    pool = Pool((SKIP, conv(5)), tuple(op for op in every if op != news[0]))
    for seed in range(20):
        after, parents = replenish(pool, {SKIP: 0.9, conv(5): 0.1}, 3, DL, generator(seed))
        first, *others = parents
        assert first == news[0] and set(others) < set(news[1:])
        assert len(after.tried) == len(set(after.tried)) == 12


def test_a_pool_stays_smaller_when_nothing_is_left():
    near = morphisms(conv(5), DL)
    alone = Pool((conv(5),), (conv(5), *near))
    for seed in range(20):
        again, parents = replenish(alone, {conv(5): 1.0}, 6, DL, generator(seed))
        assert set(again.candidates) == {conv(5), *near} and len(parents) == 4  # and not six
    assert replenish(alone, {conv(5): 1.0}, 0, DL, generator()) == (alone, {})


@pytest.mark.parametrize("space", SPACES)
def test_edges_through_all_cycles_of_table_1(space):
    """Sizes 4, 6, 6, 6, 6, 6, 4, 3, 2; DL needs re-admissions."""
    back = ragged = 0
    for seed in range(60):
        rng, pool = generator(seed), Pool.first(FIRST)
        for morphed, kept in zip((3,) * 5 + (0,) * 3, (6,) * 5 + (4, 3, 2), strict=True):
            weights = torch.rand(len(pool.candidates), generator=rng).tolist()
            survivors = prune(pool, weights, kept - morphed)
            by_op = dict(zip(pool.candidates, weights, strict=True))
            after, parents = replenish(survivors, by_op, morphed, SPACES[space], rng)
            assert any(map(is_convolution, after.candidates))
            assert len(set(after.candidates)) == len(after.candidates) <= kept
            assert set(pool.tried) <= set(after.tried) >= set(after.candidates)
            back += sum(child in pool.tried for child in parents)
            ragged += len(after.candidates) < kept
            pool = after
        assert pool == Pool.from_json(pool.to_json())
    assert (back > 3 * 60) == (space == "dl") and ragged > 0


# ------------------------------------------------------------------------------------ similarity


def test_the_first_pool_has_similarity_one_third():
    assert similarity([Pool.first(FIRST)] * 14) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("one", "other", "value"), [
    (SKIP, SKIP, 1), (SKIP, MAX, 0), (CONV, SKIP, 0), (CONV, AVG, 0), (MAX, MAX, 1),
    (MAX, AVG, 2 / 3), (conv(3), conv(3), 1), (conv(3), conv(5), 3 / 4),
    (conv(3), conv(5, 2), 1 / 2),
    (conv(3, 1, 1), conv(3, 1), 3 / 4),  # of one expansion, none: 0 of 1
    (conv(3, 1, 1), conv(3, 1, 2), (1 + 2.5) / 4),  # as long, no match: 1 of 2
    (conv(3, 1, 2, 1), conv(3, 1, 2, 3), (1 + 2 + 2 / 3) / 4),
    (conv(3, 1, 2), conv(3, 1, 2, 3), (1 + 2 + 1 / 2) / 4),
    (Op("mine"), Op("mine"), 1), (Op("mine"), Op("yours"), 0), (Op("mine"), CONV, 0),
])  # fmt: skip
def test_pairs_by_hand(one, other, value):
    assert alike(one, other) == alike(other, one) == pytest.approx(value)


def test_similarity_is_averaged_over_the_pairs_and_then_the_edges():
    pools = [Pool.first((CONV,)), Pool.first((CONV, SKIP))]
    assert similarity(pools) == pytest.approx((1 + 1 / 2) / 2)


def test_shares_and_discoveries():
    pools = [Pool((MAX, CONV), (MAX, AVG, CONV)), Pool((CONV, Op("skip_connect"), conv(5)), FIRST)]
    assert distribution(pools) == {"conv": 0.6, "pool": 0.2, "skip": 0.2}
    assert discovered(pools) == {MAX, AVG, SKIP, CONV}
    own = distribution([Pool.first((CONV, Op("mine")))])
    assert own == {"conv": 0.5, "pool": 0, "skip": 0, "own": 0.5}
