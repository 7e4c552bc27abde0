"""Dead letters dealt with: found, shown, redriven, resolved. Asked by the command line, the API and the gauge of open letters; needs no user code.

Read `book.py` first: which letters are open is what the marks in `<app>.dlq` say.
"""
