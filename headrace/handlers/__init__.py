"""What tasks call, and the policies around one call: the only place with side effects.

Lives here: the `@handler` definition, the guard that turns one attempt into one outcome (`guard.py`),
and one policy per file (`retry.py`, `breaker.py`, `pool.py`, `rate_limit.py`).

Must never: append to a log, decide what a run does next, read a clock inside a policy (time comes in as `now`), or
import `observability` or `service`. Policies are synchronous values; they show themselves through `statistics()`.

Read first: `definition.py`, `guard.py`, `retry.py`, `dispatch.py`.
"""
