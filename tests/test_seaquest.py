"""Seaquest against its rules written out, and who comes in it."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from yozh.core import leaf
from yozh.environments import make
from yozh.environments.seaquest import FOES, Seaquest

BOW, STERN, TORPEDO, TRAIL, SHOT, FISH, SUBMARINE, AIR, GAUGE, DIVER = range(10)
STAY, LEFT, UP, RIGHT, DOWN, FIRE = range(6)


@dataclasses.dataclass(eq=False)
class Thing:
    x: int
    y: int
    right: bool
    wait: int = 0
    load: int = 0

    def move(self):
        self.x += 1 if self.right else -1

    def at(self, other):
        return (self.x, self.y) == (other.x, other.y)

    @property
    def out(self):
        return not 0 <= self.x < 10


class Double:
    """The rules, one thing after another. `seen` counts what happened."""

    def __init__(self):
        self.me = Thing(5, 0, False)
        self.fish, self.submarines, self.torpedoes, self.shots, self.divers = ([] for _ in range(5))
        self.every, self.foe_due, self.diver_due, self.pace = 20, 20, 30, 5
        self.aboard = self.level = self.reload = 0
        self.air, self.surfaced, self.dead, self.reward = 200, True, False, 0
        self.seen = Counter()

    def step(self, action, draw):
        """The reward, and whether that was the end."""
        self.reward = 0
        self.arrivals(draw)
        self.steer(action)
        self.torpedoes_fly()
        self.divers_swim()
        self.foes_move(self.submarines)
        self.shots_fly()
        self.foes_move(self.fish)
        self.breathe()
        self.seen["foes"] = max(self.seen["foes"], len(self.fish) + len(self.submarines))
        return self.reward, self.dead

    def arrivals(self, draw):
        if self.foe_due == 0:
            self.foe_due = self.every
            foe = Thing(0 if draw.right else 9, int(draw.row), bool(draw.right), self.pace, 10)
            if any(other.y == foe.y and other.right != foe.right for other in self.fish + self.submarines):
                self.seen["refused"] += 1
            else:
                (self.fish if draw.fish else self.submarines).append(foe)
        if self.diver_due == 0:
            self.diver_due = 30
            self.divers.append(Thing(0 if draw.diver_right else 9, int(draw.diver_row), bool(draw.diver_right), 5))

    def steer(self, action):
        me = self.me
        if action == FIRE and self.reload == 0:
            self.torpedoes.append(Thing(me.x, me.y, me.right))
            self.reload = 5
        if action in (LEFT, RIGHT):
            me.right = action == RIGHT
            me.x = min(max(me.x + (1 if me.right else -1), 0), 9)
        if action in (UP, DOWN):
            me.y = min(max(me.y + (1 if action == DOWN else -1), 0), 8)

    def torpedoes_fly(self):
        for torpedo in self.torpedoes[::-1]:
            torpedo.move()
            if torpedo.out:
                self.torpedoes.remove(torpedo)
                continue
            for foes in (self.fish, self.submarines):
                met = [foe for foe in foes if foe.at(torpedo)]
                if met:
                    self.seen["several in a cell"] += len(met) > 1
                    self.seen["both kinds in a cell"] += foes is self.fish and any(s.at(torpedo) for s in self.submarines)  # fmt: skip
                    self.sink(foes, met[0], torpedo)
                    break

    def sink(self, foes, foe, torpedo):
        foes.remove(foe)
        self.torpedoes.remove(torpedo)
        self.reward += 1

    def divers_swim(self):
        for diver in self.divers[::-1]:
            if self.take(diver):
                continue
            if diver.wait > 0:
                diver.wait -= 1
                continue
            diver.wait = 5
            diver.move()
            if diver.out:
                self.divers.remove(diver)
            elif self.take(diver):
                self.seen["swam aboard"] += 1

    def take(self, diver):
        if diver.at(self.me) and self.aboard < 6:
            self.divers.remove(diver)
            self.aboard += 1
            return True
        self.seen["no room"] += diver.at(self.me)
        return False

    def foes_move(self, foes):
        for foe in foes[::-1]:
            self.touch(foe)
            if foe.wait == 0:
                foe.wait = self.pace
                foe.move()
                met = [torpedo for torpedo in self.torpedoes if torpedo.at(foe)]
                if foe.out:
                    foes.remove(foe)
                elif foe.at(self.me):
                    self.touch(foe)
                elif met:
                    self.seen["swam into a torpedo"] += 1
                    self.sink(foes, foe, met[0])
            else:
                foe.wait -= 1
            if foes is self.submarines and foe.load == 0:
                self.shots.append(Thing(foe.x, foe.y, foe.right))
            foe.load = 10 if foe.load == 0 else foe.load - 1

    def shots_fly(self):
        for shot in self.shots[::-1]:
            self.touch(shot)
            shot.move()
            if shot.out:
                self.shots.remove(shot)
            else:
                self.touch(shot)

    def touch(self, thing):
        if thing.at(self.me):
            self.dead = True
            self.seen["shot" if thing in self.shots else "caught"] += 1

    def breathe(self):
        self.foe_due, self.diver_due, self.reload = (max(x - 1, 0) for x in (self.foe_due, self.diver_due, self.reload))
        if self.air <= 0:
            self.dead = True
            self.seen["without air"] += 1
        if self.me.y > 0:
            self.air -= 1
            self.surfaced = False
        elif not self.surfaced and self.aboard == 0:
            self.dead = True
            self.seen["came up alone"] += 1
        elif not self.surfaced:
            self.surfaced = True
            self.seen["six"] += self.aboard == 6
            self.seen["came up free"] += self.aboard < 0
            self.seen["came up"] += 0 < self.aboard < 6
            if self.aboard == 6:
                self.reward += self.air * 10 // 200
                self.aboard = 0
            self.aboard -= 1
            self.air = 200
            if self.every > 1 or self.pace > 2:
                self.pace -= self.pace > 2 and self.level % 2 == 1
                self.every -= self.every > 1
                self.level += 1
            self.seen["level"] = self.level

    def picture(self):
        seen = np.zeros((10, 10, 10), bool)
        seen[self.me.y, self.me.x, BOW] = True
        seen[self.me.y, self.me.x + (-1 if self.me.right else 1), STERN] = True
        seen[9, : max(self.air, 0) * 10 // 200, AIR] = True
        seen[9, 9 - max(self.aboard, 0) : 9, GAUGE] = True
        for channel, things in (
            (TORPEDO, self.torpedoes), (SHOT, self.shots), (FISH, self.fish), (SUBMARINE, self.submarines), (DIVER, self.divers),
        ):  # fmt: skip
            for thing in things:
                seen[thing.y, thing.x, channel] = True
                back = thing.x + (-1 if thing.right else 1)
                if channel in (FISH, SUBMARINE, DIVER) and 0 <= back < 10:
                    seen[thing.y, back, TRAIL] = True
        return seen


class Drawn(Seaquest):
    """Where `one_way`, all go to the right, so that no foe is refused; where `narrow`, in two rows."""

    one_way: Array = leaf(0.0)
    narrow: Array = leaf(0.0)

    def draw(self, key):
        draw = super().draw(key)
        row, other = (jnp.where(self.narrow > 0, 1 + (x & 1), x) for x in (draw.row, draw.diver_row))
        return draw._replace(right=draw.right | (self.one_way > 0), row=row, diver_row=other)


def worth(before, state, hunts):
    """Divers and air, and where to go: up with six or when air is short, else to the nearest diver. When coming up is free, up and down
    as long as there are levels, and then to the surface; who hunts stays below as before."""
    divers, row = state.divers, state.row
    column = jax.lax.population_count(divers.place - 1)
    far = jnp.where(divers.place > 0, jnp.abs(column - state.column) + jnp.abs(divers.row - row), 20).min()
    rises = ((state.air < 25 + 2 * row) & (state.rescued != 0)) | ((state.rescued == 6) & ~hunts)
    dives = (state.level < 19) & (before.row == 0)
    goal = jnp.where(
        (state.rescued < 0) & ~hunts, jnp.where(dives, 4 * row, -4 * row), jnp.where(rises, -2 * row, -far)
    )
    return goal + jnp.where(row > 0, 8 * (state.rescued - before.rescued), 0)


def games(n, seed=0, limit=600):
    """The first steps of n games; and draws, actions, steps and states `[n, T]`. The actions are best for two steps, else random."""
    rng, i = np.random.default_rng(seed), np.arange(n)
    random = rng.random((n, limit)) > np.array([1.0, 1.0, 1.0, 0.9, 0.7, 0.0])[i % 6, None]
    noise = np.where(random[..., None], 10_000, 3) * rng.random((n, limit, 6))
    two = jnp.stack(jnp.divmod(jnp.arange(36), 6), 1)

    def game(keys, noise, hunts, one_way, narrow):
        env = Drawn(limit=limit, one_way=one_way, narrow=narrow)

        def ahead(state, actions, keys):
            def turn(state, now):
                state, step = env.step(state, *now)
                return state, 3 * step.reward - 1000 * (1 - step.discount)

            end, values = jax.lax.scan(turn, state, (actions, keys))
            return values.sum() + worth(state, end, hunts).astype(jnp.float32)

        def turn(state, now):
            keys, noise = now
            value = jax.vmap(ahead, (None, 0, None))(state, two, keys).reshape(6, 6).max(1)
            action = (value + noise + jnp.where((jnp.arange(6) == FIRE) & hunts, 2.0, 0.0)).argmax()
            state, step = env.step(state, action, keys[0])
            return state, (env.draw(keys[0]), action, step, state)

        state, first = env.reset(keys[0])
        return first, *jax.lax.scan(turn, state, (jnp.stack([keys, jnp.roll(keys, -1)], 1), noise))[1]

    keys = jax.random.split(jax.random.key(seed), (n, limit))
    found = jax.jit(jax.vmap(game))(keys, noise.astype(np.float32), i % 5 == 0, i % 4 > 1, i % 2 == 1)
    return jax.tree.map(np.asarray, found)


def test_rules():
    """The same observations, rewards and ends as by the rules written out, in games in which all there is comes to pass."""
    first, draws, actions, steps, states = games(60)
    seen, last = Counter(), actions.shape[1] - 1
    for i in range(len(actions)):
        double = Double()
        np.testing.assert_array_equal(first.obs[i], double.picture())
        drawn = [type(draws)(*x) for x in zip(*(x[i].tolist() for x in draws), strict=True)]
        for t, action in enumerate(actions[i].tolist()):
            reward, dead = double.step(action, drawn[t])
            np.testing.assert_array_equal(steps.obs[i, t], double.picture(), err_msg=f"game {i}, step {t}")
            found = steps.reward[i, t], steps.discount[i, t] == 0, steps.last[i, t]
            assert found == (reward, dead, dead or t == last), (i, t)
            if dead:
                break
        assert (states.rescued[i, t], states.level[i, t]) == (double.aboard, double.level)
        seen["steps"] += t + 1
        seen["to the limit"] += not dead
        for what, often in double.seen.items():
            seen[what] = max(seen[what], often) if what in ("foes", "level") else seen[what] + often
    assert seen["level"] == 19 and seen["foes"] == FOES - 1, "the last of them left in the step in which one more came"
    for what in ("six", "came up", "came up free", "no room", "swam aboard", "swam into a torpedo", "refused", "several in a cell",
                 "both kinds in a cell", "caught", "shot", "without air", "came up alone", "to the limit"):  # fmt: skip
        assert seen[what] > 1, (what, seen)


def test_who_comes():
    """Two kinds, two courses and eight rows for foes, two and eight for divers: each of 512 cases as often as it should be."""
    keys = jax.random.split(jax.random.key(0), 400_000)
    draw = jax.tree.map(np.asarray, jax.jit(jax.vmap(Seaquest().draw))(keys))
    case = ((draw.fish * 2 + draw.right) * 8 + draw.row - 1) * 16 + draw.diver_right * 8 + draw.diver_row - 1
    counted = np.bincount(case, minlength=512)
    expected = len(keys) / 256 * np.repeat([1 / 3, 2 / 3], 256)
    assert len(counted) == 512 and ((counted - expected) ** 2 / expected).sum() < 512 + 5 * 32


def test_two_divers_in_a_cell():
    """The later of them is taken first, where there is room for one."""
    env, aboard = Seaquest(), np.array([4, 5, 6])
    state, _ = env.reset(jax.random.key(0))
    here = jnp.full((2,), 1 << 2), jnp.full((2,), 3), jnp.array([True, False])
    state = state._replace(row=jnp.int32(3), column=jnp.int32(2), divers=type(state.divers)(*here))
    step = jax.jit(jax.vmap(lambda n: env.step(state._replace(rescued=n), jnp.int32(STAY), jax.random.key(0))[1]))
    for n, obs in zip(aboard, step(aboard).obs, strict=True):
        double = Double()
        double.me, double.aboard, double.divers = Thing(2, 3, False), int(n), [Thing(2, 3, right, 5) for right in (False, True)]  # fmt: skip
        double.step(STAY, None)
        assert (double.aboard, len(double.divers)) == (6, max(n - 4, 0))
        np.testing.assert_array_equal(obs, double.picture())


def test_by_name():
    env = make("Seaquest-MinAtar", 2, limit=20)
    space = env.spec.observation
    assert (env.backend, env.spec.horizon, env.spec.action.n) == ("jax", 20, 6)
    assert (space.shape, space.dtype) == ((10, 10, 10), "bool")
