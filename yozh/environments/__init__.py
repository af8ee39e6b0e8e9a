"""Environments: pure ones, and adapters to those of gymnax, EnvPool and Gymnasium."""

from yozh.environments.registry import make, names

__all__ = ["make", "names"]
