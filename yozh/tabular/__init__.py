"""Finite problems: solved exactly, and learnt by tables or linear features. Small enough to see through."""

from yozh.tabular.control import DoubleQLearning, ExpectedSarsa, Method, QLearning, Sarsa, control
from yozh.tabular.exact import action_values, evaluate, policy_iteration, value_iteration
from yozh.tabular.mdp import MDP, follow
from yozh.tabular.prediction import GTD2, TD, TDC, Rule, Steps, TDLambda, learn, linear, n_step, sweep

__all__ = [
    "GTD2", "MDP", "TD", "TDC", "DoubleQLearning", "ExpectedSarsa", "Method", "QLearning", "Rule", "Sarsa", "Steps", "TDLambda",
    "action_values", "control", "evaluate", "follow", "learn", "linear", "n_step", "policy_iteration", "sweep", "value_iteration",
]  # fmt: skip
