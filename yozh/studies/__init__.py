"""Experiments with known answers: `python -m yozh.studies.NAME` runs one, checks its numbers and draws its picture."""
