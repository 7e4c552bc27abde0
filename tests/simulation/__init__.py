"""Deterministic simulation: whole clusters of the real shell in one Python process, on a simulated log, clock and event loop.

One seed fixes schedule, time, faults, programs and inputs. `python -m tests.simulation --seeds N` runs many; docs/testing.md tells how to read a failing one.
"""
