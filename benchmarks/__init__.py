"""Figures against plain engines, and the open models they are taken on; never part of the tests."""
