"""The behaviour of every `Log`, stated once and run against each."""
