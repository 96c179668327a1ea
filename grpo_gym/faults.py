"""What is said when something goes wrong: where it was, so that it can be seen again, and from where to go on."""

from __future__ import annotations

import warnings

PATIENCE = 10
"""Iterations without anything to learn from after which it is time to say so."""


class Circumstances(Exception):
    """Stands before an exception, as its cause, where Python has no notes."""


def explain(error: BaseException, note: str) -> None:
    """Add a note to an exception that is about to be raised again.

    Python 3.10 has no notes: there the note becomes the exception's cause, and what caused it the note's.
    """
    if hasattr(error, "add_note"):
        error.add_note(note)
        return
    circumstances = Circumstances(note)
    circumstances.__cause__ = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    error.__cause__ = circumstances


def is_explained(error: BaseException) -> bool:
    """Tell whether `explain` was called for an exception."""
    return bool(getattr(error, "__notes__", ())) or isinstance(error.__cause__, Circumstances)


class TieWatch:
    """Warns, once, where no iteration has anything to learn from.

    Args:
        name: of the environment.
    """

    def __init__(self, name: str):
        self.name = name
        self.n_iterations = 0
        self._settled = False

    def see(self, teaches: bool) -> None:
        """Take note of an iteration, and of whether any of its advantages differs from 0."""
        self.n_iterations += 1
        self._settled |= teaches
        if self.n_iterations == PATIENCE:
            self.conclude(stacklevel=4)

    def conclude(self, stacklevel: int = 3) -> None:
        """Warn if there was nothing in all iterations so far."""
        if self._settled or not self.n_iterations:
            return
        self._settled = True
        warnings.warn(
            f"{self.name}: in none of the iterations so far ({self.n_iterations}) did an episode do better or worse "
            "than its peers: there was nothing to learn from, and the weights are as they were. Where rewards are "
            "rare, larger groups (group_size), more of them (n_groups) or longer episodes find some; "
            f"`grpo-gym doctor {self.name}`, or check_group_env(env), tells whether random play ever does",
            stacklevel=stacklevel,
        )
