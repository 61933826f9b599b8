"""The local embedding: same words, same vector, on every machine and in every process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from knowledge.embed import Embedding, HashedWords, StaticWords

TEXTS = ["Page faults of a large output", "page-fault", "vectorised loops", "vectorisation"]


def test_vectors_have_unit_length_and_one_size() -> None:
    vectors = np.array(HashedWords().embed(TEXTS))
    assert vectors.shape == (4, 1024)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)


def test_another_process_with_another_hash_seed_makes_the_same_vector() -> None:
    script = (
        "import json; from knowledge.embed import HashedWords; "
        f"print(json.dumps(HashedWords().embed({TEXTS!r})))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    np.testing.assert_array_equal(json.loads(told.stdout), HashedWords().embed(TEXTS))


def test_inflected_words_stay_near() -> None:
    near, far, query = np.array(
        HashedWords().embed(["vectorised exp", "attention mask", "vectorisation of exp"])
    )
    assert query @ near > 0.4 > query @ far


@pytest.mark.parametrize("embedding", [HashedWords(), StaticWords()], ids=lambda each: each.name)
def test_a_text_without_words_is_far_from_everything(embedding: Embedding) -> None:
    assert not np.array(embedding.embed([""])).any()


def test_static_vectors_have_unit_length_and_do_not_depend_on_their_neighbours() -> None:
    together = np.array(StaticWords().embed(TEXTS))
    assert together.shape == (4, 256)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(together[1], StaticWords().embed([TEXTS[1]])[0])


def test_static_vectors_know_which_words_are_used_alike() -> None:
    texts = ["a wonderful film", "three kilograms of iron", "this movie was great"]
    near, far, query = np.array(StaticWords().embed(texts))
    assert query @ near > query @ far + 0.1


def test_a_process_that_forks_after_embedding_is_not_warned() -> None:
    script = (
        "import os; from knowledge.embed import StaticWords; StaticWords().embed(['a', 'b'] * 50); "
        "child = os.fork(); StaticWords().embed(['c'])\n"
        "if child: os.waitpid(child, 0)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stderr == ""


def test_the_name_tells_the_parameters() -> None:
    assert HashedWords().name != HashedWords(word_buckets=256).name
