"""What a user's app defines: triggers, workflows, and the app itself, loaded and judged before anything runs.

Lives here: `EventTrigger` (`trigger.py`), `Workflow` and its decorator (`workflow.py`), the loader (`loader.py`) and what it returns (`app.py`), the
matcher that turns an event into starts (`matcher.py`), and two of the three nets against non-deterministic workflows (`determinism_scan.py` at load,
`determinism_guard.py` while a workflow is stepping; the third is the interpreter's).

Must never: touch a log, start a run, or import user code anywhere but in `loader.py`. Importing this package registers and patches nothing.

Read first: `workflow.py`, `app.py`, `matcher.py`.
"""
