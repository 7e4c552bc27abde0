"""Can the tests fail? Safeguards, switched off one at a time: the simulation must catch each. `make mutants` prints how many seeds each needed."""
