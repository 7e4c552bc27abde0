"""User code: it imports `headrace` and nothing else of ours."""
