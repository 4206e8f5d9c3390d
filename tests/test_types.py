"""What `Embeddings` accepts, what it refuses and with which sentence, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.types import Embeddings

KEYS = np.array(["a", "b", "c"])


def three(**changes) -> Embeddings:
    given = {"key": KEYS, "z": {"image": torch.ones(3, 2), "text": torch.zeros(3, 4)}, **changes}
    return Embeddings(**given)


def rows(*values: float) -> torch.Tensor:
    return torch.tensor([[v, 1.0] for v in values])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"key": []}, r"non-empty list of sample ids; got shape \(0,\)"),
        ({"key": [["a", "b", "c"]]}, r"got shape \(1, 3\)"),
        ({"key": ["a", "b", "b"]}, "key 'b' occurs 2 times; keys must be unique: drop or rename duplicates"),
        ({"key": ["a", "a", "b", "b", "b"], "z": {"image": torch.ones(5, 2)}}, "key 'a' occurs 2 times"),
        ({"z": {}}, "at least one modality; got none"),
        ({"z": {"image": torch.ones(4, 2)}}, r"z\['image'\] has 4 rows but there are 3 keys; rows must match"),
        ({"z": {"image": torch.ones(3)}}, r"z\['image'\] must have shape \[n, d\]; got \(3,\)"),
        ({"z": {"image": torch.ones(3, 0)}}, r"must have shape \[n, d\]; got \(3, 0\)"),
        ({"z": {"image": rows(1, float("nan"), float("nan"))}}, r"NaN or infinite values in 2 row\(s\), first row 1"),
        (
            {"z": {"image": rows(1, 2, float("inf"))}},
            r"in 1 row\(s\), first row 2; drop those rows or mark",
        ),
        ({"z": {"image": rows(-float("inf"), 2, 3)}}, "first row 0"),
        ({"present": {"sound": torch.ones(3, dtype=torch.bool)}}, r"present names \['sound'\], which z does not have"),
        ({"present": {"text": torch.ones(4, dtype=torch.bool)}}, r"present\['text'\] must be 3 booleans; got .*\(4,\)"),
        ({"present": {"text": torch.ones(3)}}, r"must be 3 booleans; got torch.float32"),
        ({"label": torch.ones(2, dtype=torch.int64)}, r"label must be 3 integers; got torch.int64 of shape \(2,\)"),
        ({"group": torch.ones(3)}, "group must be 3 integers; got torch.float32"),
        ({"label": torch.tensor([0, 1, 2]), "label_names": ("x", "y")}, "label 2 has no name; label_names has 2"),
    ],
)
def test_bad_input_gets_one_clear_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        three(**changes)


@pytest.mark.parametrize(
    ("z", "sentence"),
    [
        (torch.ones(3, 2, dtype=torch.int64), r"floating-point dtype; got torch.int64: cast it first"),
        (np.ones((3, 2), dtype=bool), r"got torch.bool"),
        ([[1.0], [2.0], [3.0]], r"z\['image'\] must be a tensor or array of floats; got list"),
    ],
)
def test_what_is_no_floating_point_matrix_is_a_type_error(z, sentence):
    with pytest.raises(TypeError, match=sentence):
        three(z={"image": z})


def test_rows_of_absent_items_become_zero_and_may_hold_anything():
    given = rows(1, float("nan"), float("inf"))
    data = three(z={"image": given}, present={"image": torch.tensor([True, False, False])})
    assert data.z["image"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert given[1, 0].isnan(), "the caller's tensor is left as it was"


def test_defaults(device):
    data = three().to(device)
    assert data.modalities == ("image", "text")
    assert len(data) == 3
    assert all(mask.all() for mask in data.present.values())
    assert data.groups.tolist() == [0, 1, 2]
    assert data.label is None
    assert repr(data) == "Embeddings(image [3 x 2], 3 present; text [3 x 4], 3 present)"


def test_arrays_and_numbers_as_keys_are_taken():
    data = three(key=np.arange(3), z={"image": np.ones((3, 2))}, present={"image": np.array([True, True, False])})
    assert data.key.tolist() == ["0", "1", "2"]
    assert data.z["image"].dtype == torch.float64
    assert "2 present" in repr(data)


def full(device="cpu") -> Embeddings:
    return three(
        present={"text": torch.tensor([True, False, True])},
        z={"image": rows(1, 2, 3), "text": torch.ones(3, 4)},
        label=torch.tensor([0, -1, 1]),
        group=torch.tensor([5, 6, 5]),
        label_names=("cat", "dog"),
    ).to(device)


@pytest.mark.parametrize("index", [[2, 0], np.array([2, 0]), np.array([-1, 0])])
def test_take_keeps_the_rows_together(index, device):
    part = full(device).take(index)
    assert part.key.tolist() == ["c", "a"]
    assert part.z["image"][:, 0].tolist() == [3, 1]
    assert part.present["text"].tolist() == [True, True]
    assert part.label is not None
    assert part.label.tolist() == [1, 0]
    assert part.groups.tolist() == [5, 5]
    assert part.label_names == ("cat", "dog")


def test_take_by_mask_and_the_groups_of_ungrouped_samples():
    part = three().take(np.array([False, True, True]))
    assert part.key.tolist() == ["b", "c"]
    assert part.groups.tolist() == [1, 2], "a sample keeps its own group"
    with pytest.raises(ValueError, match="non-empty"):
        three().take([False, False, False])


def test_select_gives_the_modalities_in_the_order_asked():
    assert full().select(["text", "image"]).modalities == ("text", "image")
    only = full().select(["text"])
    assert only.present["text"].tolist() == [True, False, True]
    assert only.groups.tolist() == [5, 6, 5]
    with pytest.raises(ValueError, match=r"no modality \['sound'\] in these embeddings; they have \['image', 'text'\]"):
        full().select(["text", "sound"])


def test_with_z_replaces_vectors_and_masks_them():
    data = full()
    other = data.with_z({m: torch.full((3, 7), 2.0) for m in data.z})
    assert other.z["text"].tolist() == [[2.0] * 7, [0.0] * 7, [2.0] * 7]
    masked = data.with_z(data.z, {"image": torch.tensor([True, False, True])})
    assert masked.z["image"][:, 0].tolist() == [1, 0, 3]
    assert masked.present["text"].all(), "a mask that is not given is full"
    assert data.z["image"][1, 0] == 2, "the original is left as it was"


def test_to_moves_everything_and_casts_vectors_only(device):
    data = full().to(device, torch.float64)
    assert data.device.type == device.type
    assert data.z["text"].dtype == torch.float64
    assert data.label is not None
    for tensor in (*data.z.values(), *data.present.values(), data.label, data.groups):
        assert tensor.device.type == device.type
    assert data.label.dtype == torch.int64
    assert data.to("cpu").take([1]).key.tolist() == ["b"]


def test_masks_labels_and_groups_follow_the_vectors(device):
    data = Embeddings(
        key=KEYS,
        z={"image": torch.ones(3, 2, device=device), "text": torch.ones(3, 4)},
        present={"text": torch.tensor([True, False, True])},
        label=torch.tensor([0, 1, 2]),
    )
    for tensor in (*data.z.values(), *data.present.values(), data.label, data.groups):
        assert tensor.device.type == device.type


def test_a_frozen_type():
    with pytest.raises(AttributeError):
        three().key = KEYS
