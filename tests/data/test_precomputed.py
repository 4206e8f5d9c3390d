"""A user's own arrays: accepted when they fit, refused with a sentence when they do not."""

import numpy as np
import pytest
import torch

from labkit import data


def arrays(n=12):
    rng = np.random.default_rng(0)
    return {"image": rng.normal(size=(n, 5)), "text": rng.normal(size=(n, 3)).astype(np.float32)}


def test_arrays_become_embeddings():
    given = arrays()
    mine = data.from_arrays(given)
    assert mine.modalities == ("image", "text")
    assert mine.key.tolist() == [str(i) for i in range(12)]
    for modality in given:
        assert mine.z[modality].dtype == torch.float32
        np.testing.assert_allclose(mine.z[modality].numpy(), given[modality], rtol=1e-6)


def test_tensors_integers_and_transposed_arrays_are_taken():
    x = np.arange(24).reshape(4, 6)
    mine = data.from_arrays({"a": torch.as_tensor(x).double(), "b": x, "c": np.asfortranarray(x * 0.5)})
    assert torch.equal(mine.z["a"], mine.z["b"])
    assert torch.equal(mine.z["c"] * 2, mine.z["b"])


def test_names_become_codes():
    mine = data.from_arrays(
        {"image": np.ones((4, 2))}, labels=["dog", "cat", "dog", "owl"], groups=["b", "b", "a", "c"], keys=list("wxyz")
    )
    assert mine.label_names == ("cat", "dog", "owl")
    assert mine.label.tolist() == [1, 0, 1, 2]
    assert mine.groups.tolist() == [1, 1, 0, 2]
    assert mine.key.tolist() == ["w", "x", "y", "z"]


def test_integer_labels_keep_minus_one_for_unknown():
    mine = data.from_arrays({"image": np.ones((3, 2))}, labels=[2, -1, 0])
    assert mine.label.tolist() == [2, -1, 0]


def test_a_missing_name_is_an_unknown_label_but_no_group():
    mine = data.from_arrays({"image": np.ones((3, 2))}, labels=["b", None, "a"])
    assert mine.label.tolist() == [1, -1, 0]
    assert mine.label_names == ("a", "b")
    with pytest.raises(ValueError, match="groups has missing"):
        data.from_arrays({"image": np.ones((3, 2))}, groups=["b", None, "a"])


def test_absent_rows_may_hold_anything_and_become_zero():
    x = np.ones((3, 2))
    x[1] = np.nan
    mine = data.from_arrays({"image": x}, present={"image": np.array([True, False, True])})
    assert mine.z["image"].tolist() == [[1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "no arrays"),
        ({"image": np.ones((0, 3))}, {}, "non-empty"),
        ({"image": np.ones(3)}, {}, r"'image' must have shape \[n, d\]"),
        ({"image": np.ones((3, 2, 2))}, {}, r"reshape"),
        ({"image": np.ones((3, 2)), "text": np.ones((4, 2))}, {}, "'text' has 4 rows but 'image' has 3"),
        ({"image": np.array([[1.0], [np.nan]])}, {}, r"'image'.*NaN.*first row 1"),
        ({"image": np.array([[1.0], [np.inf]])}, {}, r"'image'.*infinite"),
        ({"image": np.ones((2, 1))}, {"keys": ["a", "a"]}, "key .*a.* occurs 2 times"),
        ({"image": np.ones((2, 1))}, {"keys": ["a"]}, "2 rows but there are 1 keys"),
        ({"image": np.ones((2, 1))}, {"labels": ["a"]}, "label must be 2"),
        ({"image": np.ones((2, 1))}, {"groups": [1, 2, 3]}, "group must be 2"),
        ({"image": np.ones((2, 1))}, {"present": {"text": np.ones(2, bool)}}, "'text'"),
    ],
)
def test_bad_arrays_are_refused(given, options, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(given, **options)


@pytest.mark.parametrize("bad", [np.array([["a"], ["b"]]), np.array([[{}], [{}]]), np.ones((2, 1)) * 1j])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match=r"'image' must hold real numbers"):
        data.from_arrays({"image": bad})


def test_an_npz_file_is_read_by_path(tmp_path):
    given, path = arrays(), tmp_path / "mine.npz"
    seen = np.arange(12) != 3
    np.savez(path, **given, key=[f"k{i}" for i in range(12)], label=["a", "b"] * 6, group=[0, 1] * 6, present_text=seen)
    mine = data.load(path)
    assert mine.modalities == ("image", "text")
    assert mine.key[3] == "k3"
    assert mine.label_names == ("a", "b")
    assert mine.present["text"].tolist() == seen.tolist()
    assert data.load(str(path), modalities=("text",)).modalities == ("text",)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.npz does not exist"):
        data.load(tmp_path / "nothing.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ValueError, match=r"broken.npz cannot be read"):
        data.load(tmp_path / "broken.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"text.npz cannot be read"):
        data.load(tmp_path / "text.npz")
    np.savez(tmp_path / "objects.npz", image=np.array([[{}], [{}]]))
    with pytest.raises(ValueError, match="no Python objects"):
        data.load(tmp_path / "objects.npz")
    np.savez(tmp_path / "empty.npz", key=["a", "b"])
    with pytest.raises(ValueError, match="no modality"):
        data.load(tmp_path / "empty.npz")


def test_a_truncated_npz_is_refused(tmp_path):
    path = tmp_path / "cut.npz"
    np.savez(path, **arrays(500))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cut.npz cannot be read"):
        data.load(path)
