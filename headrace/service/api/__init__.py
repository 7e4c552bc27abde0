"""The HTTP API, and the server of the web console. Everything of aiohttp's server lives here; nothing here decides anything about runs.

Read `route_table.py` first (what there is), then `dispatch.py` (what happens to each request), then `server.py` (the port).
"""
