"""The architecture, read from the imports: it fails when a module reaches where it must not."""

import ast
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, ENVS = ROOT / "grpo_gym", ROOT / "envs" / "grpo_envs"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

OURS = "grpo_gym"
NETWORKS = {"torch.nn", "torch.optim"}
EFFECTS = {"os", "io", "pathlib", "json", "csv", "zipfile", "tempfile", "shutil", "socket", "subprocess"}
SLOTS = {"vec", "env_slots", "vector_slots", "envpool_slots", "restored_slots"}
SLOT_MODULES = {f"{OURS}.{name}" for name in SLOTS}
STEPPING = {"grpo_gym.rollout", "grpo_gym.episodes"} | SLOT_MODULES
LOGGING = {"grpo_gym.logger", "grpo_gym.log_formats"}
FILES = {"grpo_gym.checkpoint", "grpo_gym.encoding", *LOGGING}
EVALUATING = {"grpo_gym.evaluation", "grpo_gym.eval_envs", "grpo_gym.eval_player", "grpo_gym.env_layers"}
AGENT = {"grpo_gym.agent", "grpo_gym.cli", "grpo_gym.marl_agent", "grpo_gym.marl_learners", "grpo_gym.marl_cli"}
PURE = NETWORKS | EFFECTS | {"gymnasium"} | STEPPING | FILES | EVALUATING | AGENT | {"grpo_gym.policy"}
MODEL = EFFECTS | STEPPING | FILES | EVALUATING | AGENT | {"grpo_gym.update"}

MUST_NOT_IMPORT: dict[str, set[str]] = {
    "types": {OURS},
    "groups": PURE | {"torch"},
    "schedules": PURE | {"torch", "numpy"},
    "advantages": PURE,
    "baselines": PURE,
    "anchors": PURE,
    "soft_groups": PURE,
    "cross_fit": PURE,
    "visited": PURE,
    "standardised": PURE,
    "variants": PURE - {"torch.optim"},
    "core": PURE - {"grpo_gym.distributions"},
    "rewards": NETWORKS | EFFECTS | {"gymnasium"} | STEPPING | FILES | EVALUATING | AGENT | {"grpo_gym.policy"},
    "adapters": EFFECTS | FILES | AGENT | STEPPING | EVALUATING | {"gymnasium", "grpo_gym.update"},
    "references": EFFECTS | FILES | AGENT | STEPPING | EVALUATING | {"gymnasium", "grpo_gym.update"},
    "shaping": EFFECTS
    | FILES
    | AGENT
    | SLOT_MODULES
    | EVALUATING
    | {"gymnasium", "grpo_gym.rollout", "grpo_gym.update"},
    "losses": PURE,
    "gradient_noise": PURE,
    "layout": {"torch"} | EFFECTS | FILES | AGENT | STEPPING | EVALUATING,
    "action_code": {"torch"} | EFFECTS | FILES | AGENT | STEPPING | EVALUATING,
    "distributions": MODEL,
    "product": MODEL,
    "heads": MODEL,
    "features": MODEL,
    "prediction": MODEL,
    "policy_model": MODEL,
    "policies": MODEL,
    "board_policy": MODEL,
    "array_distributions": MODEL,
    "preprocessing": MODEL,
    "normalize": MODEL,
    "policy": MODEL,
    "recurrent": MODEL,
    **{
        name: {"torch", "grpo_gym.rollout", "grpo_gym.policy", "grpo_gym.update"} | EFFECTS | FILES | AGENT
        for name in SLOTS
    },
    "acting": MODEL,
    "episodes": EFFECTS | FILES | AGENT | {"gymnasium", "grpo_gym.losses", "grpo_gym.update", "grpo_gym.policy"},
    "packed_steps": {"torch"} | EFFECTS | FILES | AGENT,
    "rollout": EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update"},
    "snapshots": {"torch"} | EFFECTS | FILES | AGENT | STEPPING | EVALUATING,
    "group_report": {"torch", "gymnasium"} | EFFECTS | FILES | AGENT | STEPPING | EVALUATING,
    "vine": EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update", "grpo_gym.policy"},
    "doctor": EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update"},
    "sampler": EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update", "grpo_gym.policy"},
    "sampling": EFFECTS | FILES | AGENT | SLOT_MODULES | {"grpo_gym.rollout", "grpo_gym.update", "grpo_gym.policy"},
    "workers": EFFECTS | FILES | AGENT | {"grpo_gym.update", "grpo_gym.policy", "multiprocessing", "ray"},
    "processes": (EFFECTS - {"os"}) | FILES | AGENT | {"grpo_gym.update", "grpo_gym.policy", "ray"},
    "update": {"grpo_gym.policy"} | EFFECTS | FILES | AGENT | STEPPING | EVALUATING | {"gymnasium"},
    "optimizers": EFFECTS | FILES | AGENT | STEPPING | EVALUATING | {"gymnasium", "grpo_gym.update"},
    "mlp_learner": EFFECTS | FILES | AGENT | STEPPING | EVALUATING | {"gymnasium", "grpo_gym.update"},
    "reports": EFFECTS | FILES | AGENT | STEPPING,
    "arguments": EFFECTS | FILES | AGENT | STEPPING,
    "logger": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "log_formats": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "checkpoint": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "encoding": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "state": AGENT | STEPPING,
    "faults": {OURS, "torch", "numpy", "gymnasium"} | EFFECTS,
    "vec_face": EFFECTS | FILES | AGENT | {"torch", "grpo_gym.rollout", "grpo_gym.update", "grpo_gym.policy"},
    "deployed": MODEL,
    "export": (EFFECTS - {"io"}) | FILES | AGENT | STEPPING | EVALUATING | {"grpo_gym.update"},
    "unfinished": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "callbacks": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "tensorboard_callbacks": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "evaluation": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "eval_envs": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "eval_player": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "env_layers": AGENT | STEPPING | {"grpo_gym.update", "grpo_gym.policy"},
    "marl_games": {"torch", "grpo_gym.rollout", "grpo_gym.policy", "grpo_gym.update"} | EFFECTS | FILES | AGENT,
    "marl_roles": {"torch", "grpo_gym.rollout", "grpo_gym.policy", "grpo_gym.update"} | EFFECTS | FILES | AGENT,
    "marl_records": {"torch"} | EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update", "grpo_gym.policy"},
    "marl_rollout": {"torch"} | EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update", "grpo_gym.policy"},
    "marl_league": EFFECTS | FILES | AGENT | {"grpo_gym.losses", "grpo_gym.update"},
    "marl_evaluation": AGENT | STEPPING | {"torch", "grpo_gym.update", "grpo_gym.policy"},
    "marl_state": AGENT | STEPPING,
}
DRAWING = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli")}
MAY_IMPORT_THE_AGENT = {"__init__", "__main__", "agent", "cli", "marl_agent", "marl_learners", "marl_cli"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST, package: str = OURS) -> Iterator[str]:
    """Every module that is imported, `from a import b` as both `a` and `a.b`; not what only annotations need."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = [package] * bool(node.level) + [node.module] * bool(node.module)
        module = ".".join(str(part) for part in parts)
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from imported(child, package)


def reaches(imports: AbstractSet[str], forbidden: str) -> bool:
    return any(name == forbidden or name.startswith(f"{forbidden}.") for name in imports)


def test_the_reader_sees_every_form_of_import() -> None:
    source = """
import os.path
from torch import nn
from . import vec
from .rollout import collect
def late():
    import torch.optim as o
if TYPE_CHECKING:
    from grpo_gym.agent import GRPO
"""
    found = set(imported(ast.parse(source)))
    for name in ("os", "torch.nn", "grpo_gym.vec", "grpo_gym.rollout", "torch.optim"):
        assert reaches(found, name)
    assert not reaches(found, "grpo_gym.agent")
    assert not reaches({"osmosis"}, "os")


@cache
def imports_of(module: str) -> frozenset[str]:
    return frozenset(imported(tree_of(PACKAGE / f"{module}.py")))


@pytest.mark.parametrize("module", sorted(MUST_NOT_IMPORT))
def test_a_module_imports_nothing_that_it_must_not(module: str) -> None:
    assert {name for name in MUST_NOT_IMPORT[module] if reaches(imports_of(module), name)} == set()


@pytest.mark.parametrize("module", sorted(set(MODULES) - MAY_IMPORT_THE_AGENT))
def test_only_the_shell_imports_the_agent(module: str) -> None:
    assert not any(reaches(imports_of(module), name) for name in AGENT)


def test_the_imports_form_no_circle() -> None:
    modules = [module for module in MODULES if module != "__init__"]
    below = {m: {other for other in modules if reaches(imports_of(m), f"{OURS}.{other}")} for m in modules}
    while free := {module for module, others in below.items() if not others & set(below)}:
        for module in free:
            del below[module]
    assert not below, f"these import each other in a circle, or stand above one: {sorted(below)}"


@pytest.mark.parametrize("module", MODULES)
def test_the_package_never_imports_the_environments(module: str) -> None:
    assert not any(reaches(imports_of(module), name) for name in ("grpo_envs", "envs", "benchmarks", "tests"))


@pytest.mark.parametrize("path", sorted(ENVS.rglob("*.py")), ids=lambda path: path.stem)
def test_the_environments_never_import_the_package(path: Path) -> None:
    found = frozenset(imported(tree_of(path), "grpo_envs"))
    assert not any(reaches(found, name) for name in (OURS, "torch", "benchmarks", "tests"))


@pytest.mark.parametrize("module", sorted({"evaluation", "eval_envs", "eval_player", "callbacks"} & set(MODULES)))
def test_what_evaluates_never_touches_training_slots(module: str) -> None:
    assert not any(reaches(imports_of(module), name) for name in STEPPING | {"grpo_gym.types.Slots"})


def calls_of(method: str) -> dict[str, set[str]]:
    """For each module that calls `.method(...)`, the objects on which it does, as written."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        for node in ast.walk(tree_of(PACKAGE / f"{module}.py")):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
                found.setdefault(module, set()).add(ast.unparse(node.func.value))
    return found


def test_only_the_rollout_steps_training_slots_and_only_the_update_steps_the_optimiser() -> None:
    # slots are what is stepped; evaluation, snapshots and the command line make environments of their own
    others = {*SLOTS, "marl_games", "vec_face", "cli", "snapshots"}
    others |= {name.removeprefix("grpo_gym.") for name in EVALUATING}
    callers = {module: on for module, on in calls_of("step").items() if module not in others}
    assert callers == {"rollout": {"self.env"}, "update": {"self._optimizer"}}


def test_only_the_update_makes_gradients() -> None:
    assert set(calls_of("backward")) == {"update"}


@pytest.mark.parametrize("path", sorted([*PACKAGE.glob("*.py"), *ENVS.glob("*.py")]), ids=lambda path: path.stem)
def test_no_module_draws_from_a_global_generator(path: Path) -> None:
    used = {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    drawn = {name.split(".")[2] for name in used if name.startswith("np.random.") and "(" not in name}
    assert drawn <= {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64"}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in DRAWING:
            assert "generator" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)
