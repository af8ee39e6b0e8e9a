"""Environments: pure ones, and adapters to those of gymnax, EnvPool and Gymnasium."""

from yozh.environments.registry import for_judging, make, names

__all__ = ["for_judging", "make", "names"]
