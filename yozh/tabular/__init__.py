"""Finite problems: solved exactly, and learnt by tables or linear features. Small enough to see through."""

from yozh.tabular.control import DoubleQLearning, ExpectedSarsa, Method, QLearning, Sarsa, control
from yozh.tabular.exact import action_values, evaluate, policy_iteration, value_iteration
from yozh.tabular.gradient import (
    Judged,
    Softmax,
    average,
    discounted,
    fisher,
    generalised_advantage,
    gradient,
    natural_gradient,
    occupancy,
)
from yozh.tabular.least_squares import Seen, lsvi, lsvi_ucb, one_hot
from yozh.tabular.mdp import MDP, follow
from yozh.tabular.prediction import GTD2, TD, TDC, Rule, Steps, TDLambda, learn, linear, n_step, sweep

__all__ = [
    "GTD2", "MDP", "TD", "TDC", "DoubleQLearning", "ExpectedSarsa", "Judged", "Method", "QLearning", "Rule", "Sarsa", "Seen",
    "Softmax", "Steps", "TDLambda", "action_values", "average", "control", "discounted", "evaluate", "fisher", "follow", "generalised_advantage", "gradient", "learn",
    "linear", "lsvi", "lsvi_ucb", "n_step", "natural_gradient", "occupancy", "one_hot", "policy_iteration", "sweep", "value_iteration",
]  # fmt: skip
