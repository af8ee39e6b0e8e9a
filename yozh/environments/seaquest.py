"""Seaquest, by the rules of MinAtar (Young and Tian 2019), equal to it step for step, without its sticky actions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, restart, static, transition
from yozh.spaces import Box, Discrete

SIZE = 10
WATER = (1 << SIZE) - 1
"""The bits of a row."""
FOES = 30
AIR = 200
HOLD = 6
"""Divers that there is room for."""
RELOAD, THEIR_RELOAD = 5, 10
DIVER_COMES, DIVER_MOVES = 30, 6
"""Steps from one to the next."""


class Foes(NamedTuple):
    """Fish and enemy submarines, and what these have shot."""

    body: Int[Array, "30"]
    """Where in its row, as one bit of ten; 0: nowhere."""
    shot: Int[Array, "30"]
    """Likewise. It flies on when who shot it is gone."""
    row: Int[Array, "30"]
    right: Bool[Array, "30"]
    """The course of both, else left."""
    fish: Bool[Array, "30"]
    wait: Int[Array, "30"]
    """Steps before it moves."""
    load: Int[Array, "30"]
    """Steps before it shoots, if it is no fish."""


class Pair(NamedTuple):
    """Two torpedoes or divers, the newer first."""

    place: Int[Array, "2"]
    """A bit, or 0."""
    row: Int[Array, "2"]
    right: Bool[Array, "2"]


class Sea(NamedTuple):
    row: Int[Array, ""]
    column: Int[Array, ""]
    right: Bool[Array, ""]
    torpedoes: Pair
    reload: Int[Array, ""]
    """Steps before another torpedo."""
    foes: Foes
    slot: Int[Array, ""]
    """Of the next foe."""
    pause: Int[Array, ""]
    """Steps before it comes."""
    divers: Pair
    rescued: Int[Array, ""]
    air: Int[Array, ""]
    level: Int[Array, ""]
    """How often foes have become more and faster, 0 to 19."""
    t: Int[Array, ""]


class Draw(NamedTuple):
    """Who comes in a step in which somebody is due: a foe, a diver."""

    right: Bool[Array, ""]
    fish: Bool[Array, ""]
    row: Int[Array, ""]
    diver_right: Bool[Array, ""]
    diver_row: Int[Array, ""]


class Seaquest(Env):
    """A submarine shoots fish and other submarines, reward 1 each, takes divers aboard and comes up for air before it has none left.

    Who comes up without a diver dies, as does who meets a foe or its shot. Coming up costs a diver, of six it costs all, and the reward
    for these is what air was left, in tenths. As in MinAtar one more goes then: less than none are aboard, and coming up is free.
    Each time foes come more often, at last one every step, and grow faster three times. Actions: stay, left, up, right, down, fire.
    Observations are `bool [10, 10, 10]`: bow, stern, torpedoes, where others were, foes' shots, fish, enemy submarines, air, divers
    aboard, divers.

    All of MinAtar's lists have room here. A foe leaves with its tenth move, at level 19 in its 30th step, and one a step comes at most; at
    lower levels fewer come while it is there, however fast levels rise. A shot is gone before the next one of the same submarine, and
    before that could be. A torpedo is gone in its tenth step, and every fifth one is fired. A diver is gone in its 60th step, and every
    30th one comes, so that all of them move in the same steps.

    Nor is an order missed. All that meets is in one row, and all foes of a row have one course. Who came later moves later: no two move
    into one cell in one step, and of several in a cell the first has the shortest wait. Torpedoes fly as fast as the submarine moves:
    it stays between those to its left and those to its right, and in a cell there is one at most.
    """

    limit: int = static(1000)

    @property
    def spec(self) -> Spec:
        return Spec(Box((SIZE, SIZE, 10), 0.0, 1.0, "bool"), Discrete(6), horizon=self.limit)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        no, none = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        many, pair = jnp.zeros((FOES,), jnp.int32), jnp.zeros((2,), jnp.int32)
        foes = Foes(many, many, many, many > 0, many > 0, many, many)
        nobody = Pair(pair, pair, pair > 0)
        state = Sea(none, none + 5, no, nobody, none, foes, none, none + 20, nobody, none, none + AIR, none, none)
        return state, restart(self.observe(state))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        draw = self.draw(key)
        pace = jnp.maximum(5 - state.level // 2, 2)

        foes, due = state.foes, state.pause == 0
        against = ((foes.row == draw.row) & (foes.right != draw.right) & (foes.body > 0)).any()
        here = (jnp.arange(FOES, dtype=jnp.int32) == state.slot) & due & ~against
        new = Foes(edge(draw.right), jnp.int32(0), draw.row, draw.right, draw.fish, pace, jnp.int32(THEIR_RELOAD))
        foes = Foes(*(jnp.where(here, one, all) for one, all in zip(new, foes, strict=True)))
        slot = jnp.where(due, (state.slot + 1) % FOES, state.slot)
        pause = jnp.where(due, 20 - state.level, state.pause) - 1
        comes = (state.t % DIVER_COMES == 0) & (state.t > 0)
        divers = enter(state.divers, comes, edge(draw.diver_right), draw.diver_row, draw.diver_right)

        across = (action == 3).astype(jnp.int32) - (action == 1).astype(jnp.int32)
        down = (action == 4).astype(jnp.int32) - (action == 2).astype(jnp.int32)
        fires = (action == 5) & (state.reload == 0)
        torpedoes = enter(state.torpedoes, fires, 1 << state.column, state.row, state.right)
        reload = jnp.maximum(jnp.where(fires, RELOAD, state.reload) - 1, 0)
        row, column = jnp.clip(state.row + down, 0, SIZE - 2), jnp.clip(state.column + across, 0, SIZE - 1)
        right = jnp.where(across == 0, state.right, across > 0)
        me = 1 << column

        torpedoes = torpedoes._replace(place=onward(torpedoes.place, torpedoes.right))
        met = meet(torpedoes, foes)
        rank = (foes.wait + jnp.where(foes.fish, 0, 8))[None]
        struck = met & (rank == jnp.where(met, rank, 99).min(1, keepdims=True))
        body = jnp.where(struck.any(0), 0, foes.body)
        torpedoes = torpedoes._replace(place=jnp.where(struck.any(1), 0, torpedoes.place))

        place = jnp.where(state.t % DIVER_MOVES == DIVER_MOVES - 1, onward(divers.place, divers.right), divers.place)
        reached = (divers.row == row) & ((divers.place | place) & me > 0)
        before = jnp.stack([jnp.int32(0), reached[0].astype(jnp.int32)])
        taken = reached & (state.rescued + before < HOLD)
        divers = divers._replace(place=jnp.where(taken, 0, place))
        rescued = state.rescued + taken.sum(dtype=jnp.int32)

        moved = jnp.where(foes.wait == 0, onward(body, foes.right), body)
        shoots = ~foes.fish & (body > 0) & (foes.load == 0)
        shot = jnp.where(shoots, moved, foes.shot)
        flown = onward(shot, foes.right)
        caught = ((foes.row == row) & ((body | moved | shot | flown) & me > 0)).any()
        met = meet(torpedoes, foes._replace(body=moved))
        torpedoes = torpedoes._replace(place=jnp.where(met.any(1), 0, torpedoes.place))
        foes = foes._replace(
            body=jnp.where(met.any(0), 0, moved),
            shot=flown,
            wait=jnp.where(foes.wait == 0, pace, foes.wait - 1),
            load=jnp.where(foes.load == 0, THEIR_RELOAD, foes.load - 1),
        )
        hits = (struck | met).sum(dtype=jnp.int32)

        up = (row == 0) & (state.row > 0)
        saved, full = up & (rescued != 0), rescued == HOLD
        reward = hits + jnp.where(saved & full, state.air * 10 // AIR, 0)
        air = jnp.where(row > 0, state.air - 1, jnp.where(saved, AIR, state.air))
        ended = caught | (state.air <= 0) | (up & ~saved)
        rescued = jnp.where(saved, jnp.where(full, 0, rescued) - 1, rescued)
        level = jnp.minimum(state.level + saved.astype(jnp.int32), 19)
        t = state.t + 1
        state = Sea(row, column, right, torpedoes, reload, foes, slot, pause, divers, rescued, air, level, t)
        return state, transition(self.observe(state), reward, terminated=ended, truncated=t >= self.limit)

    def draw(self, key: Key[Array, ""]) -> Draw:
        """Rows 1 to 8 and courses are alike likely, two foes in three are fish."""
        bits = jax.random.bits(key, (), jnp.uint32)
        low = bits.astype(jnp.int32)
        row, diver_row = 1 + (low & 7), 1 + ((low >> 3) & 7)
        return Draw(low & 64 > 0, bits >> 8 >= (1 << 24) // 3, row, low & 128 > 0, diver_row)

    def observe(self, state: Sea) -> Bool[Array, "10 10 10"]:
        foes, divers, torpedoes = state.foes, state.divers, state.torpedoes
        course = jnp.where(foes.right & (foes.body > 0), 1, 0)
        body = jnp.where(foes.fish, foes.body, foes.body << SIZE)
        word = rows(foes.row, body | foes.shot << 2 * SIZE | course << 3 * SIZE)  # all in one, for there are many
        fish, submarines, shots = (word >> n * SIZE & WATER for n in range(3))
        right = word >> 3 * SIZE > 0
        me = 1 << state.column
        aboard = jnp.maximum(state.rescued, 0)
        air, gauge = (1 << jnp.maximum(state.air, 0) * 10 // AIR) - 1, ((1 << aboard) - 1) << (SIZE - 1 - aboard)
        bottom = jnp.int32(SIZE - 1)
        words = [
            rows(state.row[None], me[None]),
            rows(state.row[None], onward(me, ~state.right)[None]),
            rows(torpedoes.row, torpedoes.place),
            onward(fish | submarines, ~right) | rows(divers.row, onward(divers.place, ~divers.right)),
            shots,
            fish,
            submarines,
            rows(bottom[None], air[None]),
            rows(bottom[None], gauge[None]),
            rows(divers.row, divers.place),
        ]
        columns = jnp.arange(SIZE, dtype=jnp.int32)[None, :, None]
        return (jnp.stack(words, -1)[:, None] >> columns) & 1 > 0


def edge(right: Bool[Array, ""]) -> Int[Array, ""]:
    """Where those come in who go to the right, or left."""
    return jnp.where(right, jnp.int32(1), 1 << (SIZE - 1))


def onward(place: Int[Array, "*n"], right: Bool[Array, "*n"]) -> Int[Array, "*n"]:
    """The next cell, or 0 beyond the board."""
    return jnp.where(right, place << 1, place >> 1) & WATER


def enter(pair: Pair, when: Bool[Array, ""], *one: Array) -> Pair:
    """The older of the two has left by then."""
    return Pair(*(jnp.where(when, jnp.stack([x, two[0]]), two) for x, two in zip(one, pair, strict=True)))


def meet(pair: Pair, foes: Foes) -> Bool[Array, "2 30"]:
    """Which are in one cell."""
    return (pair.row[:, None] == foes.row[None]) & (pair.place[:, None] & foes.body[None] > 0)


def rows(row: Int[Array, " n"], place: Int[Array, " n"]) -> Int[Array, "10"]:
    """All places of a row in one word."""
    here = row[None] == jnp.arange(SIZE, dtype=jnp.int32)[:, None]
    return jax.lax.reduce(jnp.where(here, place[None], 0), jnp.int32(0), jax.lax.bitwise_or, (1,))
