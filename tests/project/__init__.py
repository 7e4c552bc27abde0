"""Rules of the repository itself: what is packaged, what a file may mention, which links exist."""
