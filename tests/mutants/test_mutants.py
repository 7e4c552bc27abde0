"""A few safeguards switched off: the simulation catches them. All of the table: `make mutants`."""

import pytest

from tests.mutants.__main__ import ROOT, main, tried
from tests.mutants.table import MUTANTS

QUICK = ("M1", "M2", "M4", "M9", "M14", "M20", "S8", "S14")  # caught within 20 seeds, however programs are drawn
SEEDS = 100


def test_each_safeguard_is_where_the_table_says() -> None:
    for mutant in MUTANTS:
        assert (ROOT / "headrace" / mutant.file).read_text().count(mutant.old) == 1, mutant.id
    assert len({mutant.id for mutant in MUTANTS}) == len(MUTANTS) >= 48


@pytest.mark.parametrize("arguments", [["M99"], ["M1", "m2"], ["M1", "--seeds", "0"]])
def test_what_tries_nothing_is_no_verdict(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("id_", QUICK)
def test_a_safeguard_that_is_switched_off_is_caught(id_: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.id == id_)
    verdict = tried(mutant, seeds=SEEDS)
    assert verdict.by not in {"", "start"}, verdict


@pytest.mark.slow
def test_the_tree_as_it_is_passes_what_catches_them() -> None:
    verdict = tried(None, seeds=40)
    assert verdict.by == "", verdict
    assert verdict.seeds >= 40
