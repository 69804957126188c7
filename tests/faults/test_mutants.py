"""The mutants of `make mutants` fit the code as it is; whether they are caught, that command tells."""

from pathlib import Path

import pytest

from tests.faults.forms import ALL
from tests.faults.mutant import Mutant
from tests.faults.mutants import MUTANTS, copy, mutate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_is_still_python(mutant: Mutant, tmp_path: Path) -> None:
    copy(tmp_path)
    mutate(tmp_path, mutant)
    for edit in mutant.edits:
        compile((tmp_path / edit.file).read_text(), edit.file, "exec")
    assert set(mutant.faults) <= set(ALL)


def test_a_mutant_that_does_not_fit_any_more_says_so(tmp_path: Path) -> None:
    copy(tmp_path)
    mutate(tmp_path, MUTANTS[0])
    with pytest.raises(ValueError, match="does not hold this once any more"):
        mutate(tmp_path, MUTANTS[0])
