"""The whole service, from outside: real processes, real logs, judged by what is in the topics.

`backend.py` says where a log is, `instance.py` is one `headrace` process, `station.py` is an app's place on a backend,
`ledger.py` reads its run log, `effects.py` what its handlers did, `judge.py` holds the two against each other. The apps
under `apps/` are user code: they import `headrace` and nothing else of ours.
"""
