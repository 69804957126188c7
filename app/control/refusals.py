"""All that is wrong with a change, put together before it is refused: a user corrects it once, and not fault by fault.

What the user can correct is told first. That a server could not be asked is only told where nothing else is wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from app.domain.errors import ChangewireError, Conflict, FieldProblem, Invalid

MOST_TOLD = 50
"""Faults that an answer names one by one."""


class Refusals:
    """What was found of one watcher."""

    def __init__(self) -> None:
        self.invalid: list[FieldProblem] = []
        self.conflicts: list[Conflict] = []
        self.trouble: list[ChangewireError] = []
        """What a server, or the service's account, keeps from being looked at."""

    def __bool__(self) -> bool:
        return bool(self.invalid or self.conflicts or self.trouble)

    def clean(self, *parts: str) -> bool:
        """Whether nothing is invalid in these parts of the watcher, such as `sink`, so that a server can be asked."""
        return not any(problem.within(part) for problem in self.invalid for part in parts)

    def add(self, error: ChangewireError) -> None:
        if isinstance(error, Conflict):
            self.conflicts.append(error)
        elif isinstance(error, Invalid) and error.problems:
            self.add_problems(error.problems)
        else:
            self.trouble.append(error)

    def add_problems(self, problems: Iterable[FieldProblem]) -> None:
        """Take what is wrong with fields of which nothing was said before."""
        known = {problem.field for problem in self.invalid}
        self.invalid += [problem for problem in problems if problem.field not in known]

    def drop_what_follows(self) -> None:
        """Forget conflicts about a part of which something is invalid: they are about values that have to change."""
        found, self.conflicts = self.conflicts, []
        for conflict in found:
            left = tuple(each for each in conflict.problems if self.clean(each.field.partition(".")[0]))
            if left or not conflict.problems:
                self.conflicts.append(Conflict(str(conflict), left))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take note of what the code within is refused, and go on after it."""
        try:
            yield
        except ChangewireError as error:
            self.add(error)

    def refuse(self) -> None:
        """Raise one error for all of it, if there is any: Invalid, else Conflict, else what a server said."""
        refuse_all([self])


def refuse_all(found: Sequence[Refusals], names: Sequence[str] | None = None) -> None:
    """Raise one error for all that is wrong with several watchers, if there is any.

    `names` are theirs; each fault then has the place in the list, `[3].sink.stream`, and the name."""
    invalid, conflicts, said = list[FieldProblem](), list[FieldProblem](), list[str]()
    for number, one in enumerate(found):
        name = None if names is None else names[number]
        invalid += _placed(one.invalid, number, name)
        for conflict in one.conflicts:
            conflicts += _placed(conflict.problems, number, name)
            said.append(str(conflict) if name is None else f"[{number}] {conflict}")
    if invalid:
        raise Invalid(problems=(*invalid, *conflicts))
    if said:
        raise Conflict("; ".join(said), tuple(conflicts))
    for one in found:
        for error in one.trouble:
            raise error


def _placed(problems: Iterable[FieldProblem], number: int, name: str | None) -> list[FieldProblem]:
    return [problem if name is None else problem.of(number, name) for problem in problems]
