"""Files to run Headrace with; the Python here (`monitoring`) only generates some of them and is no part of the product."""
