"""Any setting can be changed by a flag, and a wrong one says what would be right."""

from __future__ import annotations

import pytest

from omnivox.errors import ConfigError
from omnivox.train.recipes import find_recipe, llama_omni_8b
from omnivox.train.settings import override


def test_any_field_can_be_set() -> None:
    recipe = override(llama_omni_8b(), [
        "stage1.lr=1e-4", "stage1.tune=lora", "stage1.checkpointing=false", "stage1.skip=3,4", "stage2.steps=10",
        "decoder.units=500", "system=none", "stage1.trackers=tensorboard,wandb", "seed = 7"])
    assert (recipe.stage1.lr, recipe.stage1.tune, recipe.stage1.checkpointing) == (1e-4, "lora", False)
    assert (recipe.stage1.skip, recipe.stage1.trackers) == ((3, 4), ("tensorboard", "wandb"))
    assert (recipe.stage2.steps, recipe.decoder.units, recipe.system, recipe.seed) == (10, 500, None, 7)
    assert override(recipe, ["stage2.steps=none"]).stage2.steps is None
    assert llama_omni_8b().stage1.lr == 2e-5


@pytest.mark.parametrize(("change", "said"), [
    ("stage1.learning=1", "no such field as 'learning'; known are lr, batch"),
    ("stage1.tune=half", "found 'half'; expected full or lora or adaptor"),
    ("stage1.batch=two", "found 'two'; expected a whole number"), ("stage1.lr=fast", "expected a number"),
    ("stage1.checkpointing=1", "expected true or false"), ("stage1=1", "expected one of stage1.lr"),
    ("seed.lr=1", "'seed' has no fields"), ("seed", "expected FIELD=VALUE"),
    ("decoder.rope_scaling=x", "write a recipe of your own"),
])
def test_a_wrong_change_says_what_would_be_right(change: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(llama_omni_8b(), [change])
    assert said in str(caught.value)
    assert change.partition("=")[0] in str(caught.value)


def test_recipes_go_by_their_names() -> None:
    assert find_recipe("llama_omni_8b") == find_recipe("llama-omni-8b") == llama_omni_8b()
    with pytest.raises(ConfigError, match="found 'gpt'; expected nano, llama-omni-8b, llama-omni-3b, llama-omni-1b"):
        find_recipe("gpt")
