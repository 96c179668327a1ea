"""What every callback is made of: the hooks that `learn` calls, and callbacks that call others."""

# ruff: noqa: B027 -- the hooks are empty on purpose: most callbacks override one or two

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, cast

from grpo_gym.types import CallbackModel

Hook = Callable[[dict[str, Any], dict[str, Any]], bool | None]


class BaseCallback(ABC):
    """Override `_on_step`, and whichever of the other `_on_*` hooks is needed.

    Attributes:
        model: the agent; anything with what `CallbackModel` lists.
        n_calls: how often `on_step` was called.
        num_timesteps: environment steps taken so far.
        locals: what the training loop shows: `self`, `total_timesteps`, and of the last vector step `infos`
            (a list of dicts; that of an ended episode has `"episode": {"r", "l", ...}`), `dones`, `rewards`,
            `actions`, `new_obs` and `n_steps`.
        globals: names of the module the agent is defined in.
        parent: the callback that calls this one, if one does.
        verbose: 0 quiet, 1 information, 2 details.
    """

    model: Any
    parent: Any = None

    def __init__(self, verbose: int = 0) -> None:
        self.verbose = verbose
        self.n_calls = 0
        self.num_timesteps = 0
        self.locals: dict[str, Any] = {}
        self.globals: dict[str, Any] = {}

    @property
    def training_env(self) -> Any:
        """The environment being trained in.

        Raises:
            ValueError: if the agent has none.
        """
        env = self.model.get_env()
        if env is None:
            raise ValueError("the agent has no environment; give it one with set_env(env)")
        return env

    @property
    def logger(self) -> Any:
        """The agent's logger."""
        return self.model.logger

    def init_callback(self, model: CallbackModel) -> None:
        """Meet the agent, before training starts."""
        self.model = model
        self._init_callback()

    def on_training_start(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """Called once, before the first rollout."""
        self.locals = locals_
        self.globals = globals_
        self.num_timesteps = self.model.num_timesteps
        self._on_training_start()

    def on_rollout_start(self) -> None:
        """Called before the episodes of an iteration."""
        self._on_rollout_start()

    def on_step(self) -> bool:
        """Called after each vector step.

        Returns:
            False to stop training within this step. A hook that returns nothing lets it go on.
        """
        self.n_calls += 1
        self.num_timesteps = self.model.num_timesteps
        return goes_on(self._on_step())

    def on_rollout_end(self) -> None:
        """Called after the episodes of an iteration, before the update."""
        self._on_rollout_end()

    def on_training_end(self) -> None:
        """Called at the end of `learn`, whatever ended it."""
        self._on_training_end()

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """See new values of the training loop's variables."""
        self.locals.update(locals_)
        self.update_child_locals(locals_)

    def update_child_locals(self, locals_: dict[str, Any]) -> None:
        """Pass them on to the callbacks that this one calls."""

    def _init_callback(self) -> None:
        """Prepare, with `self.model` at hand."""

    def _on_training_start(self) -> None:
        """Do something before the first rollout."""

    def _on_rollout_start(self) -> None:
        """Do something before each rollout."""

    @abstractmethod
    def _on_step(self) -> bool:
        """Do something after each vector step; False stops training."""

    def _on_rollout_end(self) -> None:
        """Do something after each rollout."""

    def _on_training_end(self) -> None:
        """Do something, such as closing what was opened, when training ends."""


def warn_of_no_turn(callback: BaseCallback, name: str, frequency: int) -> None:
    """Warn where `frequency` calls never came, but as many environment steps did: who counts these waits in vain.

    Args:
        callback: whose turn it should have been every so many calls.
        name: of the argument.
        frequency: its value.
    """
    if callback.n_calls < frequency <= callback.num_timesteps:
        kind = type(callback).__name__
        warnings.warn(
            f"{kind} had no turn: {name}={frequency} counts vector steps, as in stable-baselines3, of which there were "
            f"{callback.n_calls}; num_timesteps is {callback.num_timesteps}. To count environment steps, write "
            f"EveryNTimesteps({frequency}, {kind}(..., {name}=1))",
            stacklevel=2,
        )


def goes_on(answer: Any) -> bool:
    """Read the answer of a hook: False stops training, and None, from one that returns nothing, does not."""
    return answer is None or bool(answer)


class CallbackList(BaseCallback):
    """Several callbacks, each called in turn, even after one has asked to stop."""

    def __init__(self, callbacks: Sequence[BaseCallback]) -> None:
        super().__init__()
        self.callbacks = list(callbacks)

    def _init_callback(self) -> None:
        for callback in self.callbacks:
            callback.init_callback(self.model)
            callback.parent = self.parent

    def _on_training_start(self) -> None:
        for callback in self.callbacks:
            callback.on_training_start(self.locals, self.globals)

    def _on_rollout_start(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_start()

    def _on_step(self) -> bool:
        return all([goes_on(callback.on_step()) for callback in self.callbacks])

    def _on_rollout_end(self) -> None:
        for callback in self.callbacks:
            callback.on_rollout_end()

    def _on_training_end(self) -> None:
        # Each must get to close what it opened, even if another one fails at that.
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):
                stack.callback(callback.on_training_end)

    def update_child_locals(self, locals_: dict[str, Any]) -> None:
        """Pass new values on to all."""
        for callback in self.callbacks:
            callback.update_locals(locals_)


class ConvertCallback(BaseCallback):
    """A function `(locals, globals) -> bool | None` as a callback; None lets training go on."""

    def __init__(self, callback: Hook | None, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.callback = callback

    def _on_step(self) -> bool:
        return self.callback is None or goes_on(self.callback(self.locals, self.globals))


def as_callback(callback: Any) -> BaseCallback:
    """Make one callback of what `learn(callback=)` accepts.

    Args:
        callback: None, a function `(locals, globals) -> bool | None`, a callback (stable-baselines3's are
            welcome), or a list of these.

    Raises:
        TypeError: on anything else.
    """
    if callback is None:
        return CallbackList([])
    if isinstance(callback, list | tuple):
        return CallbackList([as_callback(one) for one in callback])
    if hasattr(callback, "on_step") and hasattr(callback, "init_callback"):
        return cast(BaseCallback, callback)
    if callable(callback):
        return ConvertCallback(callback)
    raise TypeError(
        f"callback is a {type(callback).__name__}; expected None, a function (locals, globals) -> bool, "
        "a BaseCallback, or a list of these"
    )


class EventCallback(BaseCallback):
    """Base of callbacks that call another one on some event.

    The child starts and ends with its parent, and its `on_step` comes with each event.

    Args:
        callback: the child; None for none.
        verbose: see `BaseCallback`.
    """

    def __init__(self, callback: BaseCallback | None = None, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.callback = callback
        for child in self.children():
            child.parent = self

    def children(self) -> list[BaseCallback]:
        """Return the callbacks that this one calls."""
        return [] if self.callback is None else [self.callback]

    def init_callback(self, model: CallbackModel) -> None:
        """Meet the agent, and introduce the children to it."""
        super().init_callback(model)
        for child in self.children():
            child.init_callback(model)

    def on_training_start(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """Start, then start the children."""
        super().on_training_start(locals_, globals_)
        for child in self.children():
            child.on_training_start(self.locals, self.globals)

    def on_training_end(self) -> None:
        """End, then end the children."""
        super().on_training_end()
        for child in self.children():
            child.on_training_end()

    def update_child_locals(self, locals_: dict[str, Any]) -> None:
        """Pass new values on to the children."""
        for child in self.children():
            child.update_locals(locals_)

    def _on_event(self) -> bool:
        """Call the child; False stops training."""
        return self.callback is None or goes_on(self.callback.on_step())

    def _on_step(self) -> bool:
        return True
