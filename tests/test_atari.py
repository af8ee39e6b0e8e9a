"""Atari games on both backends, options of environments, human scores and presets."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import yozh
from tests.test_adapters import drive
from tests.test_compare import group
from tests.test_environments import check_boundaries
from yozh import presets
from yozh.agents import DQN, PPO
from yozh.agents.optimisers import RMSProp
from yozh.agents.scales import Clipped
from yozh.app.cli import main
from yozh.core import YozhError
from yozh.environments import atari, atari_scores, for_judging, make
from yozh.environments.envpool import EnvPool
from yozh.runners.plan import Plan
from yozh.runners.policy import Policy
from yozh.runners.training import Training

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("envpool") and importlib.util.find_spec("ale_py")), reason="needs EnvPool and ale-py"
)
BACKENDS = pytest.mark.parametrize("prefix", ["", "ALE/"], ids=["envpool", "ale"])


def actions(n: int, steps: int, streams: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(n, size=(steps, streams)).astype(np.int32)


@pytest.mark.parametrize(
    ("game", "options"),
    [
        ("Pong", {}),
        ("Freeway", {"stack": 3, "size": 40, "full_actions": True}),
        ("SpaceInvaders", {"full_actions": True}),
        ("Breakout", {"grey": False, "stack": 2}),
    ],
)
def test_both_backends_show_the_same(game: str, options: dict):
    """Spaces, and the images of a game in which nothing is drawn at random, byte for byte."""
    still = options | {"noop_max": 1}  # fire alone opens the game
    one, two = make(f"{game}-v5", 2, hosted=True, **still), make(f"ALE/{game}-v5", 2, **still)
    assert one.spec == two.spec and (one.backend, two.backend) == ("envpool", "gymnasium")
    asked = dataclasses.asdict(atari.Options()) | options
    assert one.spec.observation.shape == (asked["stack"] * (1 if asked["grey"] else 3), asked["size"], asked["size"])
    assert one.spec.action.n == (18 if asked["full_actions"] else {"Pong": 6, "Breakout": 4}[game])
    ours, theirs = (drive(env, actions(one.spec.action.n, 60))[1] for env in (one, two))
    np.testing.assert_array_equal(ours.obs[4:], theirs.obs[4:])
    np.testing.assert_array_equal(ours.reward, theirs.reward)
    assert len(np.unique(ours.obs[4:, 0], axis=0)) > 20, "nothing moves: nothing was tested"


@BACKENDS
@pytest.mark.parametrize("skip", [4, 2])
def test_a_game_is_truncated_with_its_true_last_observation(prefix: str, skip: int):
    env = make(f"{prefix}Breakout-v5", 2, hosted=True, max_steps=9, size=36, frame_skip=skip)
    one = check_boundaries(*drive(env, actions(4, 29)), truncates=True)
    assert one.last[9].all() and one.last[19].all() and not one.last[10:19].any()
    assert one.obs.dtype == np.uint8 and one.reward.dtype == np.float32
    assert not np.array_equal(one.obs[9], one.obs[8]), "what closes a game is seen"


class Heard:
    """A simulator that keeps the number of lives after each step."""

    def __init__(self, inner):
        self.inner, self.lives = inner, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def _keep(self, answer):
        self.lives.append(answer[-1]["lives"].copy())
        return answer

    def recv(self):
        return self._keep(self.inner.recv())

    def step(self, action):
        return self._keep(self.inner.step(action))


@BACKENDS
@pytest.mark.parametrize("apart", [False, True], ids=["games", "lives"])
def test_a_lost_life_ends_the_episode_and_not_the_game(prefix: str, apart: bool):
    env = make(f"{prefix}Breakout-v5", 2, hosted=True, size=36, life_episodes=apart)
    simulator = "_vector" if prefix else "_pool"
    first = env.reset(0)
    setattr(env, simulator, Heard(getattr(env, simulator)))
    steps = []
    for action in actions(4, 320):
        env.send(action)
        steps.append(env.recv())
    one = jax.tree.map(lambda *x: np.stack(x), first, *steps)
    lives = np.stack([np.full(2, 5), *getattr(env, simulator).lives])
    env.close()
    lost = lives[1:] < lives[:-1]
    over = one.last[1:] & (one.discount[1:] == 0)
    np.testing.assert_array_equal(over, lost if apart else lost & (lives[1:] == 0))
    assert lost.sum() >= 8 and (lives[1:][lost] == 3).any(), "later lives are played too"
    opened = one.first[1:]
    np.testing.assert_array_equal(opened[1:], one.last[1:-1])
    assert (one.reward[one.first] == 0).all()


@BACKENDS
def test_games_that_wait_for_fire_begin_with_it(prefix: str):
    """Nobody presses fire: without it the ball of Breakout never moves, and no life is lost."""
    for fires in (True, False):
        env = make(f"{prefix}Breakout-v5", 1, hosted=True, size=36, life_episodes=True, fire_reset=fires)
        _, steps = drive(env, np.zeros((150, 1), np.int32))
        env.close()
        assert (steps.discount == 0).sum() == 0 if not fires else (steps.discount == 0).sum() >= 4, steps.discount.sum()


@BACKENDS
def test_rewards_are_those_of_the_game_or_their_sign(prefix: str):
    found = {}
    for sign in (False, True):
        env = make(f"{prefix}MsPacman-v5", 2, hosted=True, size=36, sign_rewards=sign)
        found[sign] = set(drive(env, actions(9, 150))[1].reward.ravel().tolist())
        env.close()
    assert {0.0, 10.0} <= found[False] and found[True] == {0.0, 1.0}


@pytest.mark.parametrize("capacity", [1000, 1_000_000], ids=["inside", "hosted for its replay"])
def test_what_only_training_shall_see(capacity: int):
    asked = {"life_episodes": True, "sign_rewards": True, "sticky": 0.25}
    for id in ("Pong-v5", "ALE/Pong-v5"):
        assert for_judging(id, asked) == {"sticky": 0.25}
    assert for_judging("CartPole-v1", asked) == asked
    assert not atari.is_game("HalfCheetah-v5") and not atari.is_game("Breakout-MinAtar")
    plan = Plan(steps=64, env_options=asked)
    training = Training(DQN(streams=2, capacity=capacity), "Pong-v5", plan, name="dqn", backend=None, out=None, observers=())  # fmt: skip
    inside = isinstance(training.env, EnvPool)
    seen = dict((training.env.config if inside else training.env._config).options)
    judged = dict(training.judge.options)
    training.close()
    assert inside == (capacity == 1000)
    assert (seen["episodic_life"], seen["reward_clip"], seen["repeat_action_probability"]) == (True, True, 0.25)
    assert (judged["episodic_life"], judged["reward_clip"], judged["repeat_action_probability"]) == (False, False, 0.25)


@pytest.mark.parametrize("id", ["Pong-v5", "ALE/Pong-v5"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stikcy": 0.25}, r"-v5 has no option 'stikcy'; did you mean sticky\?"),
        ({"episodic_life": True}, "-v5 has no option 'episodic_life'; it is called life_episodes here"),
        ({"reward_clipping": True}, "it is called sign_rewards here"),
        ({"sticky": 2}, "-v5: sticky is a chance from 0 to 1, not 2"),
        ({"life_episodes": 1}, "life_episodes takes true or false, not 1"),
        ({"noop_max": 0}, "noop_max takes a positive whole number, not 0"),
    ],
)
def test_options_that_there_are_not(id: str, options: dict, message: str):
    with pytest.raises(YozhError, match=message):
        make(id, 2, **options)


@pytest.mark.parametrize(
    ("env", "backend", "message"),
    [
        ("CartPole-v1", "jax", r"'limti'; did you mean limit\?"),
        ("CartPole-v1", "gymnasium", "CartPole-v1: .*'limti'; there are .*sutton_barto_reward"),
        ("CartPole-v1", "envpool", "EnvPool cannot make CartPole-v1"),
    ],
)
def test_other_environments_tell_their_options(env: str, backend: str, message: str):
    with pytest.raises(YozhError, match=message):
        _ = make(env, 1, backend=backend, limti=3).spec


def test_workers_are_not_for_games_with_threads():
    with pytest.raises(YozhError, match="ALE/Pong-v5 has threads of its own"):
        make("ALE/Pong-v5", 2, workers=2)


def test_scores_of_all_games():
    assert len(atari_scores.SCORES) == 57 and all(low < high for low, high in atari_scores.SCORES.values())
    for id in ("Pong-v5", "ALE/Pong-v5", "pong"):
        assert atari_scores.human_normalised(id, -20.7) == 0 and atari_scores.human_normalised(id, 14.6) == 1
    assert atari_scores.human_normalised("ALE/UpNDown-v5", 533.4 + 0.25 * (11693.2 - 533.4)) == pytest.approx(0.25)
    for prefix in ("", "ALE/"):
        ids = [id for id in yozh.environments.names() if atari.is_game(id) and id.startswith("ALE/") == bool(prefix)]
        found = {atari_scores.references(id) for id in ids} - {None}
        assert found == set(atari_scores.SCORES.values()), prefix
    assert atari_scores.references("Breakout-MinAtar") is None
    with pytest.raises(YozhError, match="CartPole-v1 is none of the 57"):
        atari_scores.human_normalised("CartPole-v1", 1.0)


def test_comparison_by_human_scores(tmp_path: Path):
    group(tmp_path / "a", [-20.7, 14.6, 14.6, 14.6, 14.6], env="Pong-v5")
    group(tmp_path / "b", [30.5, 30.5, 30.5, 30.5, 59.3], env="ALE/Breakout-v5")
    found = yozh.compare([tmp_path], out=tmp_path / "c.html", normalise="human")
    scores = np.array(found.figures["aggregates"]["scores"]["ppo"])
    np.testing.assert_allclose(scores, [[1, 0], [1, 1], [1, 1], [1, 1], [2, 1]])
    own = yozh.compare([tmp_path], out=tmp_path / "c.html", normalise="human", references={"Pong-v5": {"random": 0.0, "human": 14.6}})  # fmt: skip
    assert np.array(own.figures["aggregates"]["scores"]["ppo"])[1, 1] == pytest.approx(1.0)
    group(tmp_path / "c", [1, 2, 3, 4, 5], env="C-v0")
    with pytest.raises(YozhError, match="lacks C-v0, which is none of the 57"):
        yozh.compare([tmp_path], out=tmp_path / "c.html", normalise="human")


def test_other_options_are_another_method(tmp_path: Path):
    group(tmp_path / "a", [1, 2, 3, 4, 5], env="Pong-v5", env_options={"life_episodes": True})
    group(tmp_path / "b", [1, 2, 3, 4, 5], env="Pong-v5", env_options={"life_episodes": True, "sticky": 0.25})
    found = yozh.compare([tmp_path], out=tmp_path / "c.html")
    assert set(found.figures["environments"]["Pong-v5"]["methods"]) == {"ppo", "ppo, env.sticky 0.25"}
    assert not found.warnings


@pytest.mark.parametrize("agent", [agent for agent, env in presets.names() if env == "Atari"])
@pytest.mark.parametrize("id", ["Pong-v5", "ALE/MsPacman-v5"])
def test_presets_for_any_game(agent: str, id: str):
    preset = presets.find(agent, id)
    assert (preset.agent, preset.steps) == presets.start(agent, id) and preset.steps == 50_000_000
    assert preset is presets.find(agent, "Atari") and isinstance(preset.agent.reward, Clipped)
    asked = presets.env_options(agent, id)
    assert not asked.get("sign_rewards"), "rewards are clipped once"
    env = make(id, 2, **asked)
    jax.eval_shape(lambda: preset.agent.init(jax.random.key(0), env.spec))
    env.close()
    assert (agent, "CartPole-v1") in presets.names() or agent != "dqn"
    if agent not in yozh.agents.names():
        with pytest.raises(YozhError, match=f"{agent} is a preset of dqn for Atari games; CartPole-v1 takes dqn"):
            presets.start(agent, "CartPole-v1")


def test_published_settings():
    """dqn_zoo's figures, in frames; Rainbow's as in the paper's table 4."""
    for name, rate, epsilon, final, target, learnt in [
        ("c51", 2.5e-4, 0.01 / 32, 0.01, 40_000, 200_000), ("qr-dqn", 5e-5, 0.01 / 32, 0.01, 40_000, 200_000),
        ("iqn", 5e-5, 0.01 / 32, 0.01, 40_000, 80_000), ("double-dqn", 2.5e-4, 0.01 / 32**2, 0.01, 120_000, 200_000),
        ("dqn", 2.5e-4, 0.01 / 32**2, 0.1, 40_000, 200_000), ("rainbow", 6.25e-5, 1.5e-4, None, 32_000, 80_000),
    ]:  # fmt: skip
        agent = presets.find(name, "Atari").agent
        assert agent.target.period * agent.update_every * 4 == target and agent.warm_up * 4 == learnt, name
        assert (agent.batch, agent.capacity, agent.update_every * 4) == (32, 1_000_000, 16)
        np.testing.assert_allclose(agent.gamma, 0.99)
        np.testing.assert_allclose([agent.learning_rate.value, agent.descent.epsilon], [rate, epsilon], rtol=1e-6)
        if name in ("dqn", "double-dqn"):
            assert (
                isinstance(agent.descent, RMSProp) and agent.descent.centred and agent.descent.decay == np.float32(0.95)
            )
        if final:
            schedule = agent.epsilon
            np.testing.assert_allclose([schedule.start, schedule.end, schedule.fraction], [1.0, final, 0.02], rtol=1e-6)


def test_plans_hold_options_as_plain_data():
    plan = Plan(steps=1, env_options={"b": [1, [2]], "a": None})
    assert plan.env_options == (("a", None), ("b", (1, (2,))))
    assert Plan(**json.loads(json.dumps(dataclasses.asdict(plan)))) == plan
    with pytest.raises(YozhError, match=r"env_options: make is .* and a file holds numbers"):
        Plan(steps=1, env_options={"make": print})
    with pytest.raises(YozhError, match="env_options: workers is no option of an environment"):
        Plan(steps=1, env_options={"workers": 2})


def test_options_go_with_the_run_and_its_policy(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    words = "train ppo CartPole-v1 --steps 600 --envs 2 --eval-episodes 5 --agent.length 20 --agent.minibatches 1 --env.limit 7 --quiet --out"  # fmt: skip
    assert main([*words.split(), str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["env_options"] == {"limit": 7}
    assert json.loads((out / "summary.json").read_text())["evaluation"]["mean_length"] == 7
    assert "<tr><th>limit</th><td>7</td></tr>" in (out / "report.html").read_text()
    assert yozh.load(out).env_options == {"limit": 7}
    assert yozh.evaluate(out, episodes=3)["mean_length"] == 7
    assert yozh.evaluate(out, episodes=3, env_options={"limit": 5})["mean_length"] == 5
    assert yozh.evaluate(out, "CartPole-v1", episodes=3)["mean_length"] == 7
    assert main(["evaluate", str(out), "--episodes", "2", "--env.limit", "4"]) == 0
    assert "of 4 steps" in capsys.readouterr().out
    resumed = yozh.resume(out, steps=700)
    assert resumed.summary["evaluation"]["mean_length"] == 7 and resumed.summary["env_options"] == {"limit": 7}


@pytest.mark.slow
def test_options_reach_the_processes_of_seeds(tmp_path: Path):
    asked = dict(seeds=2, steps=600, envs=2, eval_episodes=5, out=tmp_path / "g")
    done = yozh.train_seeds(PPO(length=20, minibatches=1), "CartPole-v1", env_options={"limit": 7}, **asked)
    assert [row["mean_return"] for row in done.summary["seeds"]] == [7, 7]
    with pytest.raises(YozhError, match="env_options differ"):
        yozh.train_seeds(PPO(length=20, minibatches=1), "CartPole-v1", env_options={"limit": 8}, **asked)


def test_a_policy_is_judged_by_whole_games(tmp_path: Path):
    """A life of Breakout without a hit takes some 25 steps, a game five times that."""
    spec = make("Breakout-v5", 2, size=36).spec
    agent = DQN(streams=2)
    params = agent.policy(agent.init(jax.random.key(0), spec))
    policy = Policy(agent, params, spec, "Breakout-v5", env_options={"size": 36, "max_steps": 200})
    assert yozh.evaluate(policy, episodes=2)["mean_length"] > 100
    with pytest.raises(YozhError, match="Breakout-v5: life_episodes is for training only"):
        yozh.evaluate(policy, episodes=2, env_options={"life_episodes": True})
    seen = yozh.watch(policy, out=tmp_path / "film.gif", env_options={"max_steps": 12})
    assert seen.lengths == (12,) and (tmp_path / "film.gif").stat().st_size > 1000


@pytest.mark.slow
@BACKENDS
def test_training_whole(prefix: str, tmp_path: Path):
    """Lives in training, games in evaluation; checkpoint, resume, report."""
    agent = DQN(streams=2, batch=4, capacity=200, warm_up=40)
    asked = {"life_episodes": True, "sign_rewards": True, "size": 36, "max_steps": 150}
    run = yozh.train(agent, f"{prefix}Breakout-v5", steps=300, env_options=asked, eval_episodes=2, out=tmp_path / "r")
    assert run.policy.env_options == {"size": 36, "max_steps": 150} and run.summary["evaluation"]["mean_length"] > 100
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    lengths = [row["length_mean"] for row in rows if "length_mean" in row]
    assert lengths and np.mean(lengths) < 60, "an episode is a life"
    again = yozh.resume(tmp_path / "r", steps=400)
    assert again.summary["env_options"] == asked and again.summary["steps"] >= 400
    page = Path(yozh.app.report.write_report(tmp_path / "r")).read_text()
    assert "<tr><th>life_episodes</th><td>True, in training only</td></tr>" in page
