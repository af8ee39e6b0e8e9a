"""A bonus for entropy keeps a policy from settling on the nearer of two peaks.

A bandit with two peaks, the lower at -1 and the higher at 2, and a Gaussian policy whose mean begins between -1.5 and 0.5. Policy
gradient with a mean baseline, few samples at a time; its deviation shrinks as soon as one peak is found, and the other is never
seen again. With `c ∇H` added, c annealed to 0, the deviation stays wide until the higher peak has won.
"""

import sys

import numpy as np
from jaxtyping import Float

from yozh.studies.study import Check, Outcome, drawn, main, panels

LOWER, HIGHER, WIDTH, HEIGHT = -1.0, 2.0, 0.5, 0.7
BONUSES = 0.0, 0.02, 0.05, 0.1, 0.2, 0.3
UPDATES, SAMPLES, RATE, LARGEST = 2000, 8, 0.1, 0.5


def reward(action: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Two bells of the same width, one of height 0.7 and one of height 1."""
    return HEIGHT * np.exp(-(((action - LOWER) / WIDTH) ** 2) / 2) + np.exp(-(((action - HIGHER) / WIDTH) ** 2) / 2)


def ascend(bonus: float, seeds: int) -> tuple[Float[np.ndarray, "updates seeds"], Float[np.ndarray, " seeds"]]:
    """The mean and the last deviation of a policy N(m, e^2l): `∇log π = (ε / σ, ε² - 1)` and `∇H = (0, 1)` for (m, l), a = m + σ ε."""
    rng = np.random.default_rng(0)
    mean, log, found = rng.uniform(-1.5, 0.5, seeds), np.zeros(seeds), np.empty((UPDATES, seeds))
    for update in range(UPDATES):
        noise, deviation = rng.normal(size=(SAMPLES, seeds)), np.exp(log)
        worth = reward(mean + deviation * noise)
        worth -= worth.mean(0)
        left = max(0.0, 1 - update / (0.7 * UPDATES))
        step = np.stack([(worth * noise / deviation).mean(0), (worth * (noise**2 - 1)).mean(0) + bonus * left])
        step *= RATE * np.minimum(1.0, LARGEST / np.maximum(np.linalg.norm(step, axis=0), 1e-9))
        mean, log = mean + step[0], np.clip(log + step[1], -4.0, 2.0)
        found[update] = mean
    return found, np.exp(log)


def run(repetitions: int = 500) -> Outcome:
    found = {bonus: ascend(bonus, repetitions) for bonus in BONUSES}
    low = {bonus: float((means[-1] < (LOWER + HIGHER) / 2).mean()) for bonus, (means, _) in found.items()}
    checks = [Check("no bonus: share of seeds that stay on the lower peak", low[0.0], 0.2, 1.0)]
    checks += [Check(f"bonus {b}: share of seeds that stay on the lower peak", low[b], 0.0, 0.02) for b in BONUSES[-2:]]
    off = float(np.abs(found[0.3][0][-1] - HIGHER).max())
    checks.append(Check("bonus 0.3: largest distance from the higher peak in the end", off, 0.0, 0.2))
    figure, (left, middle, right) = panels(3)
    at = np.linspace(-3, 4, 200)
    left.plot(at, reward(at), color="grey")
    left.set(title="two-peak bandit", xlabel="action", ylabel="reward")
    for bonus in (0.0, 0.3):
        middle.plot(np.arange(0, UPDATES, 20), found[bonus][0][::20, :12], color="C0" if bonus else "C1", linewidth=0.7)
    middle.plot([], color="C1", label="no bonus")
    middle.plot([], color="C0", label="bonus 0.3")
    middle.set(title="twelve seeds each", xlabel="updates", ylabel="mean of the policy")
    middle.legend(frameon=False)
    right.plot(BONUSES, [low[b] for b in BONUSES], marker="o")
    right.set(title="seeds that stay on the lower peak", xlabel="bonus at the beginning", ylabel="share")
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("entropy", run, 500))
