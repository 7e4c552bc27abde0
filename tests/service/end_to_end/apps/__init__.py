"""Apps that the tests run as users would: by file, in another process."""
