"""Watching: who draws, what is shown, what is written, and what is said where nothing can be."""

import sys
from pathlib import Path

import gymnasium as gym
import jax
import numpy as np
import pytest
from PIL import Image

import yozh
from yozh.agents import DQN, PPO
from yozh.app import scene, video
from yozh.app.cli import main
from yozh.app.pictures import Painter
from yozh.core import Spec, YozhError
from yozh.environments import probes
from yozh.environments.catch import Catch
from yozh.environments.classic import CartPole, Pendulum
from yozh.networks import GRU
from yozh.runners.policy import Policy
from yozh.spaces import Box, Dict, Discrete

pygame = pytest.importorskip("pygame")


def untrained(agent, spec: Spec, env: str | None = None) -> Policy:
    return Policy(agent, agent.policy(agent.init(jax.random.key(0), spec)), spec, env)


class Grid(gym.Env):
    """A walk on a line, seen as a Dict with a mask in it; actions start at 1, and the last moment is blue."""

    observation_space = gym.spaces.Dict({"place": gym.spaces.Discrete(4, start=2), "speed": gym.spaces.Box(-1, 1, (2,), np.float64),
                                         "action_mask": gym.spaces.MultiBinary(2)})  # fmt: skip
    action_space = gym.spaces.Discrete(2, start=1)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def see(self):
        return {"place": np.int64(self.place + 2), "speed": np.zeros(2), "action_mask": np.array([0, 1], np.int8)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.see(), {}

    def step(self, action):
        assert action == 2, "the mask allows no other"
        self.place += 1
        return self.see(), 1.0, self.place == 3, False, {}

    def render(self):
        assert self.render_mode == "rgb_array"
        picture = np.zeros((33, 41, 3), np.uint8)
        picture[..., 2 if self.place == 3 else 0] = 250
        return picture


def grid(limit: int = 10) -> gym.Env:
    """Made without a word on how it is drawn."""
    return gym.wrappers.TimeLimit(Grid(), limit)


def plain() -> gym.Env:
    """Nobody draws it, and its observation is no picture."""
    return gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda r: r)


GRID = Spec(Dict.of({"place": Discrete(4), "speed": Box((2,), -1.0, 1.0)}), Discrete(2), legal=True)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch):
    """A display that shows nothing."""
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def read(path: Path) -> np.ndarray:
    """A film's pictures, `[T, height, width, 3]`."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            frames = []
            for i in range(image.n_frames):
                image.seek(i)
                frames.append(np.asarray(image.convert("RGB")))
            return np.stack(frames)
    import imageio_ffmpeg

    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in frames])


@pytest.mark.parametrize("ending", ["gif", "mp4"])
@pytest.mark.parametrize("env", [grid, Grid, "tests.test_watch:grid"], ids=["function", "class", "name"])
@pytest.mark.usefixtures("no_screen")
def test_dict_mask_and_memory_in_an_environment_of_ones_own(env, ending: str, tmp_path: Path):
    """Every moment of every episode, the last one too, by the environment's own painter and in its rate."""
    policy = untrained(PPO(core=GRU(8)), GRID)
    seen = yozh.watch(policy, env, out=tmp_path / f"film.{ending}", episodes=2)
    assert seen.returns == (3.0, 3.0) and seen.lengths == (3, 3) and seen.path == tmp_path / f"film.{ending}"
    frames = read(seen.path)
    blue = frames[:, 10, 10, 2] > 125
    if ending == "mp4":  # a GIF joins equal pictures into a longer one
        assert blue.tolist() == [False, False, False, True] * 2 and frames.shape[1:3] == (34, 42)
    else:
        assert blue.tolist() == [False, True] * 2 and frames.shape[1:3] == (33, 41)
        with Image.open(seen.path) as image:
            assert image.info["duration"] == 300


@pytest.mark.usefixtures("no_screen")
def test_options_of_the_environment_are_seen(tmp_path: Path):
    policy = untrained(PPO(core=GRU(8)), GRID, "tests.test_watch:grid")
    policy.env_options = {"limit": 2}
    for seen in (
        yozh.watch(policy, out=tmp_path / "a.gif"),
        yozh.watch(policy, grid, out=tmp_path / "b.gif", env_options={"limit": 2}),
    ):
        assert seen.lengths == (2,) and read(seen.path)[0, 10, 10, 0] > 125, "by the environment's own painter"


def test_pure_environments_are_drawn_by_gymnasium_of_the_same_id(tmp_path: Path):
    for env, pure in (("CartPole-v1", CartPole()), ("Pendulum-v1", Pendulum())):
        opened = scene.set_scene(untrained(PPO(), pure.spec), env)
        assert isinstance(opened.host, yozh.environments.gymnasium.GymnasiumHost) and opened.rate in (30, 50)
        opened.host.close()


def test_observations_that_look_like_pictures_are_drawn(tmp_path: Path):
    seen = yozh.watch(untrained(DQN(), Catch().spec), Catch(), out=tmp_path / "catch.gif", episodes=2)
    frames = read(seen.path)
    assert seen.lengths == (9, 9) and len(frames) == 20 and frames.shape[1:] == (320, 160, 3)
    assert set(seen.returns) <= {-1.0, 1.0}
    pictured = untrained(PPO(), probes.Pictured().spec)
    assert read(yozh.watch(pictured, probes.Pictured, out=tmp_path / "p.gif").path).std() == 0


def test_painters_find_the_picture():
    assert Painter.of(Box((4,))) is None and Painter.of(Discrete(3)) is None and Painter.of(Box((1, 8))) is None
    stack = np.zeros((1, 4, 84, 84), np.uint8)
    stack[0, -1, 5, 7] = 255
    frame = Painter.of(Dict.of({"a": Box((3,)), "b": Box((4, 84, 84), 0, 255, "uint8")}))(
        {"a": np.zeros((1, 3)), "b": stack}
    )
    assert frame.shape == (252, 252, 3) and frame[15, 21].tolist() == [255] * 3 and frame.sum() == 9 * 3 * 255
    painter = Painter.of(Box((4, 4)))
    first, later = painter(np.eye(4)[None]), painter(5 * np.eye(4)[None])
    assert first[0, 0, 0] == later[0, 0, 0] == 255 and painter(np.eye(4)[None])[0, 0, 0] < 100, "the range grows"
    photo = Painter.of(Box((40, 40, 3), 0.0, 1.0))(np.full((1, 40, 40, 3), [1.0, 0.5, 0.0]))
    assert photo[0, 0].tolist() == [255, 127, 0]


def test_an_episode_begins_afresh_for_a_recurrent_policy(tmp_path: Path):
    """Recall shows its sign in the first step only."""
    policy, calls = untrained(PPO(core=GRU(8)), probes.Recall().spec), []
    reset = policy.reset
    policy.reset = lambda: (calls.append("reset"), reset())[1]
    shown = scene.Scene(yozh.make(probes.Recall(), 1, hosted=True), lambda obs: None, 8.0)
    list(shown.play(policy, episodes=3, longest=100, seed=0))
    assert calls == ["reset"] * 3


@pytest.mark.usefixtures("screen")
def test_a_window_shows_what_is_played_and_can_be_closed(monkeypatch: pytest.MonkeyPatch):
    shown = []
    flip = pygame.display.flip
    monkeypatch.setattr(pygame.display, "flip", lambda: (shown.append(pygame.display.get_surface().copy()), flip()))
    monkeypatch.setattr("yozh.app.watch.time.sleep", lambda s: None)
    seen = yozh.watch(untrained(DQN(), Catch().spec), Catch(), episodes=2)
    assert len(shown) == 20 and shown[0].get_size() == (160, 320) and seen.lengths == (9, 9) and seen.path is None
    assert not pygame.display.get_init()
    shown.clear()

    def close() -> None:
        shown.append(None)
        if len(shown) == 4:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    monkeypatch.setattr(pygame.display, "flip", close)
    assert yozh.watch(untrained(DQN(), Catch().spec), Catch(), episodes=5).returns == () and len(shown) == 4


@pytest.mark.usefixtures("screen")
def test_gymnasium_opens_its_own_window(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pygame.display, "set_caption", lambda title: titles.append(title))
    titles: list[str] = []
    seen = yozh.watch(untrained(PPO(), CartPole().spec, "CartPole-v1"))
    assert len(seen.returns) == 1 and seen.returns[0] == seen.lengths[0] > 5
    assert titles[-1] == f"CartPole-v1, episode 1: {seen.lengths[0]} after {seen.lengths[0]} steps"


@pytest.mark.usefixtures("no_screen")
def test_what_cannot_be_watched_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    policy = untrained(PPO(), CartPole().spec, "CartPole-v1")
    with pytest.raises(
        YozhError, match=r"there is no display for a window: give a file, --out policy.mp4 or policy.gif"
    ):
        yozh.watch(policy)
    with pytest.raises(YozhError, match=r"a film is an .mp4 or a .gif, not film.avi"):
        yozh.watch(policy, out=tmp_path / "film.avi")
    with pytest.raises(YozhError, match=r"there is no folder .*nowhere for film.gif"):
        yozh.watch(policy, out=tmp_path / "nowhere" / "film.gif")
    with pytest.raises(YozhError, match=r"Recall cannot be drawn: it has no picture, and Box\(2,\).* is none"):
        yozh.watch(untrained(PPO(), probes.Recall().spec), probes.Recall(), out=tmp_path / "film.gif")
    with pytest.raises(YozhError, match=r"the policy was trained for .*, and the environment has"):
        yozh.watch(policy, Catch(), out=tmp_path / "film.gif")
    with pytest.raises(YozhError, match="the policy does not say where it was trained: name an environment"):
        yozh.watch(untrained(PPO(), CartPole().spec), out=tmp_path / "film.gif")
    with pytest.raises(YozhError, match="episodes must be positive, not 0"):
        yozh.watch(policy, out=tmp_path / "film.gif", episodes=0)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(YozhError, match=r"film.mp4 needs ffmpeg: pip install 'yozh\[video\]'; a .gif needs nothing"):
        yozh.watch(policy, out=tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())


def test_a_film_that_breaks_off_leaves_no_file(tmp_path: Path):
    for ending in ("gif", "mp4"):
        with pytest.raises(ZeroDivisionError), video.camera(tmp_path / f"film.{ending}", 10.0) as take:
            take(np.zeros((8, 8, 3), np.uint8))
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_screen")
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    untrained(PPO(), CartPole().spec, "CartPole-v1").save(tmp_path / "policy.safetensors")
    assert main(["watch", str(tmp_path), "--out", str(tmp_path / "film.mp4"), "--episodes", "2"]) == 0
    out = capsys.readouterr().out
    assert "episode 2: return " in out and f"film: {tmp_path / 'film.mp4'}" in out
    assert main(["watch", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("yozh: there is no display for a window")
    assert main(["watch"]) == 2 and "watch needs POLICY" in capsys.readouterr().err
