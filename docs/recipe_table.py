"""The page of all recipes, written from the recipes themselves."""

from __future__ import annotations

import inspect
from typing import Any

from grpo_gym import GRPO
from grpo_gym.recipes import RECIPES, Recipe

HEAD = """# Recipes

Constructor arguments that were tuned for an environment, on seeds that no table reports. `recipe("Pendulum-v1")`
returns them as a dictionary, `grpo-gym train Pendulum-v1` trains by them. How they score, beside PPO with the settings
of rl-baselines3-zoo, stands in `benchmarks/results/README.md` of the repository. What a recipe does not name has its
default, in the last section.
"""


def page() -> str:
    """Return the page in Markdown: a section for each environment, and the defaults."""
    sections = [_section(env_id, found) for env_id, found in RECIPES.items()]
    return "\n".join([HEAD, *sections, _defaults()])


def _section(env_id: str, found: Recipe) -> str:
    arguments = "\n".join(f"    {name}={_code(value)}," for name, value in found.arguments.items())
    return (
        f"## {env_id}\n\nFor {found.total_timesteps:,} environment steps.\n\n"
        f'```python\nGRPO(\n    "MlpPolicy",\n    "{env_id}",\n{arguments}\n)\n```\n'
    )


def _defaults() -> str:
    parameters = inspect.signature(GRPO.__init__).parameters.values()
    rows = [
        f"| `{parameter.name}` | `{_code(parameter.default)}` |"
        for parameter in parameters
        if parameter.default is not inspect.Parameter.empty and not parameter.name.startswith("_")
    ]
    return "## Defaults\n\n" + "\n".join(["| argument | default |", "|---|---|", *rows]) + "\n"


def _code(value: Any) -> str:
    if isinstance(value, type):
        return f"{value.__module__.partition('.')[0]}.nn.{value.__name__}"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}": {_code(item)}' for key, item in value.items()) + "}"
    return repr(value).replace("'", '"')
