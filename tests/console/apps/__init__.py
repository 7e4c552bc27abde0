"""Apps that the browser tests look at."""
