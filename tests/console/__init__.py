"""The web console: its sources, the build that is checked in, and a browser that uses it."""
