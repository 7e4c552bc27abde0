"""The schema, step by step. A released step never changes; `upgrade.py` takes a database through those that it lacks."""
