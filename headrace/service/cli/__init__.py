"""The command line. One file per group of commands; `command_line.py` knows them by name and loads the one that is
called.

Data goes to stdout, all else to stderr. Never here: what a record means (`engine/`), what a topic must be like
(`topic_plan.py`). Read `command_line.py`, then `option.py` and `output.py`, then any group.
"""
