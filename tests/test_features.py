from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from torch import nn

from grpo_gym.features import CombinedFeatures, ImageFeatures
from grpo_gym.policy import CnnPolicy, MlpPolicy, MultiInputPolicy
from grpo_gym.preprocessing import Preprocessor, channels_first, is_image
from tests.identities import picture

HWC, CHW = Box(0, 255, (8, 10, 3), np.uint8), Box(0, 255, (3, 8, 10), np.uint8)
MIXED = Dict({"image": HWC, "told": Tuple([Discrete(3), Box(-9.0, 9.0, (2, 2), np.float64)]), "bits": MultiBinary(2)})


def rows_of(space: gym.Space[Any], n: int = 3) -> torch.Tensor:
    space.seed(0)
    layout = Preprocessor(space).layout
    return torch.from_numpy(np.stack([layout.pack_one(space.sample()) for _ in range(n)]))


def seeded(make: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args, **kwargs)


# --- what is an image ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (HWC, True),
        (CHW, True),
        (Box(0, 255, (8, 10), np.uint8), False),
        (Box(0, 1, (8, 10, 3), np.uint8), False),
        (Box(0.0, 255.0, (8, 10, 3), np.float32), False),
        (Discrete(3), False),
    ],
    ids=str,
)
def test_an_image_is_bytes_on_three_axes(space: gym.Space[Any], expected: bool) -> None:
    assert is_image(space) is expected


@pytest.mark.parametrize("space", [Box(0.0, 1.0, (8, 10, 3)), HWC, Box(0, 1, (8, 10, 3), np.uint8)], ids=str)
def test_what_is_normalised_already_may_be_any_numbers(space: gym.Space[Any]) -> None:
    assert is_image(space, normalized=True)


@pytest.mark.parametrize(
    ("shape", "first"), [((3, 8, 8), True), ((8, 8, 3), False), ((4, 84, 84), True), ((8, 3, 8), False)]
)
def test_channels_are_the_smallest_axis(shape: tuple[int, ...], first: bool) -> None:
    assert channels_first(Box(0, 255, shape, np.uint8)) is first


# --- what a network gets ---------------------------------------------------------------------------------------


def test_images_come_with_channels_first_between_0_and_1_in_either_order() -> None:
    for space, first in ((HWC, False), (CHW, True)):
        image = np.zeros(space.shape, np.uint8)
        image[(1, 2, 3) if first else (2, 3, 1)] = 51  # channel 1, row 2, column 3
        given_ = Preprocessor(space).structured(torch.from_numpy(image[None]))[""]
        assert given_.shape == (1, 3, 8, 10)
        assert given_.nonzero().tolist() == [[0, 1, 2, 3]]
        assert given_.max() == pytest.approx(0.2)


def test_images_that_are_normalised_already_are_left_as_they_are() -> None:
    image = torch.full((1, 8, 10, 3), 200.0)
    assert Preprocessor(Box(0.0, 1.0, (8, 10, 3)), normalize_images=False).structured(image)[""].max() == 200
    assert Preprocessor(HWC, normalize_images=False).flat(image.byte()).max() == 200


def test_parts_of_a_dict_come_by_the_keys_that_lead_to_them() -> None:
    preprocessor = Preprocessor(MIXED)
    parts = preprocessor.structured(rows_of(MIXED))
    shapes = {name: tuple(part.shape[1:]) for name, part in parts.items()}
    assert shapes == {"bits": (2,), "image": (3, 8, 10), "told/0": (3,), "told/1": (2, 2)}
    assert {part.dtype for part in parts.values()} == {torch.float32}
    assert preprocessor.spaces()["image"].shape == (3, 8, 10)
    assert preprocessor.spaces()["told/1"] == MIXED["told"][1]  # type: ignore[index]


def test_flat_is_everything_side_by_side_in_the_order_of_the_space() -> None:
    space = Dict({"a": Discrete(2, start=1), "b": Box(-9.0, 9.0, (2,)), "c": MultiDiscrete([2, 2])})
    preprocessor = Preprocessor(space)
    row = preprocessor.layout.pack_one({"a": 2, "b": [0.5, -3.0], "c": [0, 1]})
    assert preprocessor.flat(torch.from_numpy(row[None])).tolist() == [[0, 1, 0.5, -3, 1, 0, 0, 1]]
    assert (preprocessor.size, preprocessor.vector_size) == (8, 8)


def test_a_list_of_the_parts_gives_what_their_rows_give() -> None:
    rows, preprocessor = rows_of(MIXED), Preprocessor(MIXED)
    parts = [torch.from_numpy(np.array(part)) for part in preprocessor.layout.parts(rows.numpy())]
    assert torch.equal(preprocessor.flat(parts), preprocessor.flat(rows))
    assert torch.equal(preprocessor.vector(parts), preprocessor.vector(rows))
    one, other = preprocessor.structured(parts), preprocessor.structured(rows)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_flat_image_is_divided_by_255_too() -> None:
    flat = Preprocessor(HWC).flat(torch.full((1, 8, 10, 3), 51, dtype=torch.uint8))
    assert flat.shape == (1, 240)
    assert flat.numpy() == pytest.approx(0.2)


def test_levels_are_told_apart_in_the_integer_boxes_of_a_dict_alone() -> None:
    space = Dict({"board": Box(-1, 1, (2,), np.int8), "image": HWC, "x": Box(0.0, 1.0, (1,))})
    assert Preprocessor(space, one_hot=True).size == 2 * 3 + 240 + 1


def test_a_sketch_is_the_means_over_fields_of_each_channel() -> None:
    space = Box(0, 255, (16, 16, 3), np.uint8)
    sketch = Preprocessor(space).sketch(torch.from_numpy(picture(3, 16, False))[None])
    assert sketch.shape == (1, 192)
    by_field = sketch.view(3, 8, 8)
    for channel, brightness in enumerate((250, 120, 60)):
        assert by_field[channel, 4:, 4:].numpy() == pytest.approx(brightness / 255)
    assert by_field[:, :4].count_nonzero() == by_field[:, :, :4].count_nonzero() == 0


def test_a_sketch_of_a_small_image_is_the_image_and_of_anything_else_the_flat() -> None:
    assert Preprocessor(Box(0, 255, (5, 4, 3), np.uint8)).sketch(rows_of(Box(0, 255, (5, 4, 3), np.uint8))).shape == (
        3,
        60,
    )
    rows = rows_of(MIXED)
    assert Preprocessor(MIXED).sketch(rows).shape == (3, 2 + 3 * 64 + 3 + 4)
    space = Dict({"a": Discrete(2), "b": MultiBinary(3)})
    assert torch.equal(Preprocessor(space).sketch(rows_of(space)), Preprocessor(space).flat(rows_of(space)))


# --- networks for images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 7, 35, 36, 84])
def test_images_of_any_size_make_as_many_features_as_asked_for(side: int) -> None:
    network = seeded(ImageFeatures, Box(0, 255, (3, side, side + 1), np.uint8), 5)
    assert network(torch.rand(2, 3, side, side + 1)).shape == (2, 5)


def test_the_nature_network_has_its_published_size() -> None:
    # 4·32·8² + 32, 32·64·4² + 64, 64·64·3² + 64, 7·7·64·512 + 512
    network = seeded(ImageFeatures, Box(0, 255, (4, 84, 84), np.uint8))
    assert sum(p.numel() for p in network.parameters()) == 8224 + 32832 + 36928 + 1606144


def test_combined_features_are_those_of_each_image_and_all_the_rest() -> None:
    spaces = Dict(Preprocessor(MIXED).spaces())
    network = seeded(CombinedFeatures, spaces, 6)
    assert network.features_dim == 6 + 3 + 4 + 2
    parts = Preprocessor(MIXED).structured(rows_of(MIXED))
    features = network(parts)
    assert features.shape == (3, 15)
    assert torch.equal(features[:, 6:], torch.cat([parts["bits"], parts["told/0"], parts["told/1"].flatten(1)], dim=1))


@pytest.mark.parametrize("name", ["NatureCNN", "CombinedExtractor", "FlattenExtractor"])
def test_stable_baselines3s_extractors_fit(name: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.torch_layers")
    image = Box(0, 255, (36, 36, 3), np.uint8)
    space: Any = Dict({"image": image, "x": Discrete(3)}) if name == "CombinedExtractor" else image
    policy = seeded(MlpPolicy, space, Discrete(4), features_extractor_class=getattr(sb3, name))
    assert policy(policy.preprocess(rows_of(space))).log_probs.shape == (3, 4)


class Mean(nn.Module):
    features_dim = 2

    def __init__(self, space: Box, scale: float = 1.0):
        super().__init__()
        assert space.shape[0] == 3
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.mean(dim=(2, 3))[:, :2]


def test_an_extractor_of_your_own_is_trained_too() -> None:
    policy = seeded(
        CnnPolicy, HWC, Discrete(2), features_extractor_class=Mean, features_extractor_kwargs={"scale": 3.0}
    )
    assert policy.features_extractor.scale.item() == 3
    policy(policy.preprocess(rows_of(HWC))).log_probs[:, 0].sum().backward()
    assert policy.features_extractor.scale.grad != 0


class Mute(nn.Module):
    def __init__(self, space: gym.Space[Any]):
        super().__init__()


def test_an_extractor_that_does_not_say_how_many_features_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Mute\.features_dim is None, expected a whole number"):
        MlpPolicy(HWC, Discrete(2), features_extractor_class=Mute)


# --- the policies ----------------------------------------------------------------------------------------------


def test_the_cnn_policy_has_no_further_layer_and_the_multi_input_policy_two() -> None:
    assert len(seeded(CnnPolicy, HWC, Discrete(4)).body) == 0
    assert [m.out_features for m in seeded(MultiInputPolicy, MIXED, Discrete(4)).body[::2]] == [64, 64]


def test_convolutions_begin_orthogonal_and_without_bias() -> None:
    first = seeded(CnnPolicy, HWC, Discrete(4)).features_extractor.network[0]
    weight = first.weight.flatten(1)  # 16 filters of 27 numbers, gain √2
    assert torch.allclose(weight @ weight.T, 2 * torch.eye(16), atol=1e-5)
    assert first.bias.count_nonzero() == 0


def test_the_order_of_channels_is_no_matter() -> None:
    first, last = (seeded(CnnPolicy, space, Discrete(4), ortho_init=False) for space in (CHW, HWC))
    images = rows_of(CHW)
    assert torch.equal(first(images).log_probs, last(images.permute(0, 2, 3, 1)).log_probs)


def test_bytes_stay_bytes_until_they_are_looked_at() -> None:
    policy, rows = seeded(MultiInputPolicy, MIXED, Discrete(4)), rows_of(MIXED)
    assert policy.preprocess(rows) is rows
    assert rows.dtype == torch.uint8


def test_normalisation_is_for_what_is_no_image() -> None:
    space = Dict({"image": HWC, "x": Box(-99.0, 99.0, (1, 2))})
    policy = seeded(MultiInputPolicy, space, Discrete(4), normalize_observations=True)
    pack = policy.preprocessor.layout.pack_one
    image = np.full(HWC.shape, 51, np.uint8)
    rows = torch.from_numpy(np.stack([pack({"image": image, "x": [[a, b]]}) for a, b in ((0, 10), (2, 30))]))
    policy.observe(rows)  # means 1 and 20, deviations 1 and 10
    parts = policy._extractor_inputs(rows)
    assert parts["x"].tolist() == [[[pytest.approx(-1), pytest.approx(-1)]], [[pytest.approx(1), pytest.approx(1)]]]
    assert parts["image"].numpy() == pytest.approx(0.2)


def test_an_image_alone_is_divided_by_255_and_needs_no_other_normalisation() -> None:
    assert seeded(CnnPolicy, HWC, Discrete(4), normalize_observations=True).normalizer is None


def test_one_number_by_itself_is_taken_beside_an_image() -> None:
    space = Dict({"charge": Box(0.0, 1.0, ()), "eye": Box(0, 255, (8, 8, 3), np.uint8)})
    policy = MultiInputPolicy(space, Discrete(2))
    assert policy.features_extractor is not None
    assert policy.features_extractor.features_dim == 256 + 1
    assert policy.predict(space.sample(), deterministic=True) in (0, 1)


def test_a_policy_of_a_dict_is_the_policy_of_its_parts_side_by_side() -> None:
    space, flat_space = Dict({"a": Discrete(2), "b": Box(-9.0, 9.0, (2,))}), Box(-9.0, 9.0, (4,))
    policy, flat = (seeded(MlpPolicy, given_, Discrete(3), ortho_init=False) for given_ in (space, flat_space))
    observation = {"a": 1, "b": np.array([0.5, -3.0], np.float32)}
    rows = torch.from_numpy(policy.preprocessor.layout.pack_one(observation)[None])
    expected = flat(flat.preprocess(torch.tensor([[0.0, 1.0, 0.5, -3.0]])))
    assert torch.equal(policy(policy.preprocess(rows)).log_probs, expected.log_probs)


@pytest.mark.parametrize(
    ("policy", "space", "kwargs", "said"),
    [
        (CnnPolicy, MIXED, {}, r"images alone, got Dict.*use policy='MultiInputPolicy'"),
        (CnnPolicy, Box(0.0, 1.0, (4,)), {}, r"expects images, Box\(0, 255, .*uint8.*got Box.*use policy='MlpPolicy'"),
        (CnnPolicy, Box(0.0, 1.0, (8, 8, 3)), {}, r"'normalize_images': False"),
        (CnnPolicy, Discrete(3), {"normalize_images": False}, r"expects images"),
        (MultiInputPolicy, HWC, {}, r"expects a Dict or Tuple.*use policy='CnnPolicy'"),
        (MultiInputPolicy, Discrete(3), {}, r"expects a Dict or Tuple.*use policy='MlpPolicy'"),
        (CnnPolicy, HWC, {"one_hot_observations": True}, r"is for MlpPolicy"),
        (MlpPolicy, HWC, {"features_extractor_kwargs": {"dim": 3}}, r"'dim': 3} and no features_extractor_class"),
    ],
)
def test_a_policy_that_does_not_fit_says_which_does(policy: Any, space: Any, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy(space, Discrete(2), **kwargs)


@pytest.mark.parametrize("policy", [CnnPolicy, MultiInputPolicy])
def test_images_that_are_normalised_already_are_taken_on_request(policy: Any) -> None:
    image = Box(0.0, 1.0, (8, 8, 3))
    space: Any = image if policy is CnnPolicy else Dict({"image": image})
    made = seeded(policy, space, Discrete(2), normalize_images=False)
    assert made(made.preprocess(rows_of(space))).log_probs.shape == (3, 2)
    assert any(isinstance(module, nn.Conv2d) for module in made.modules())


@pytest.mark.parametrize("space", [HWC, MIXED], ids=["image", "dict"])
def test_an_action_does_not_depend_on_how_many_are_chosen_beside_it(space: gym.Space[Any]) -> None:
    policy = seeded(CnnPolicy if space is HWC else MultiInputPolicy, space, Box(-1.0, 1.0, (2,)), ortho_init=False)
    actor, rows = policy.actor(), rows_of(space, 37).numpy()
    noise = np.random.default_rng(0).uniform(0.01, 0.99, (37, 2)).astype(np.float32)
    actions, log_probs = actor.act(rows, noise)
    for n in (1, 15, 16, 17):
        some, some_log_probs = actor.act(rows[:n], noise[:n])
        assert some.tobytes() == actions[:n].tobytes()
        assert some_log_probs.tobytes() == log_probs[:n].tobytes()
    assert np.allclose(policy.act(rows, noise)[0], actions, atol=1e-6)
