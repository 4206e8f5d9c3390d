"""The configuration of a run: what is hashed, stored beside the results and accepted from users.

A run is `data` + `variant` (with its `options`) + `training` + `evaluation` + `seed`. The id of a run is a hash of
the resolved configuration, so the same run is never computed twice and an interrupted one is found again.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

T = TypeVar("T", bound=BaseModel)
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
MissingBy = Literal["chance", "label"]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field and what it accepts."""


class Part(BaseModel):
    """A part of a configuration.

    Class attributes:
        added: fields that came after runs had been stored: at their default they are not written out, so that these
            runs keep their ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    added: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_defaults_of_added(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        plain = {n for n in self.added if getattr(self, n) == fields[n].get_default(call_default_factory=True)}
        return {name: value for name, value in written(self).items() if name not in plain}


class DomainConfig(Part):
    """How the test samples differ in kind from the training samples; by default they do not.

    Attributes:
        train: kind (the column of that name in the data set's table) of the training and validation samples, e.g.
            "drawing"; all kinds where empty.
        test: kind of the test samples, e.g. "photo". The split by group is the same as without: samples of another
            kind than their split's are left out of the run, so results have the chance level of a smaller gallery.
        test_items: modality -> modality of the same encoder whose items the test samples have in its place, e.g.
            `{text: text_fr}` for captions in French where training was in English.
    """

    train: str = ""
    test: str = ""
    test_items: dict[str, str] = Field(default_factory=dict)


class DataConfig(Part):
    """What is aligned.

    Attributes:
        dataset: name in `labkit.data.DATASETS`, or the path of an `.npz` file of arrays.
        modalities: two or more of the data set's modalities.
        missing: share of the items of the training and validation samples that are dropped; every sample keeps at
            least one item. The test samples stay complete: items that are missing in testing, too, are the corruptions
            `missing_modality` and `missing_by_label`.
        missing_by: whether they are dropped by "chance" alone, completely at random, or by "label", some classes more
            than others (`labkit.data.missing`).
        pairs: training samples with two or more items that stay paired: a share up to 1, a number above 1. The others
            are cut into samples of one modality each (`labkit.data.pairing`). Validation and test samples stay
            paired, so validation pairs select the model even where `pairs` is 0.
        unpaired: whether the samples that were cut apart are "kept" or "dropped", the control that trains on the
            pairs alone.
        shuffled: share of the training samples with two or more items that are paired wrongly: their items change
            places with those of other samples, of another group (`labkit.data.shuffling`). Validation and test samples
            stay as they are.
        options: parameters of a data set that is generated, e.g. `redundancy`; each data set checks its own.
        encoders: modality -> encoder whose features are aligned, where it is not the one the data set starts with.
        domain: kinds of the training and of the test samples, see `DomainConfig`.
    """

    added = ("missing_by", "shuffled", "encoders", "domain")

    dataset: str = "stamps"
    modalities: tuple[str, ...] = ("image", "text", "speech_fr")
    missing: Share = 0.0
    missing_by: MissingBy = "chance"
    pairs: Annotated[float, Field(ge=0)] = 1.0
    unpaired: Literal["kept", "dropped"] = "kept"
    shuffled: Annotated[float, Field(ge=0, le=1)] = 0.0
    options: dict[str, Any] = Field(default_factory=dict)
    encoders: dict[str, str] = Field(default_factory=dict)
    domain: DomainConfig = DomainConfig()

    @field_validator("modalities")
    @classmethod
    def _at_least_two(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or len(set(value)) != len(value):
            raise ValueError(f"needs two or more different modalities, got {list(value)}")
        return value

    @field_validator("pairs")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("must be a share of the training samples in 0..1 or a whole number of them")
        return value


class TrainingConfig(Part):
    """How trained variants are optimized (closed forms ignore it).

    Attributes:
        epochs: upper limit of passes over the training samples.
        batch_size: samples of a step, at least: an epoch is cut into floor(n / batch_size) equal steps.
        learning_rate: peak of the schedule (linear warm-up, then cosine to zero).
        weight_decay: of AdamW.
        warmup: share of the steps spent warming up.
        gradient_clip: largest gradient norm.
        patience: epochs without a better validation score after which training stops.
        precision: of encoders and heads; loss terms are computed in float32 always. float16 needs CUDA.
    """

    epochs: Annotated[int, Field(ge=1)] = 60
    batch_size: Annotated[int, Field(ge=2)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    warmup: Share = 0.1
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    patience: Annotated[int, Field(ge=1)] = 15
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class AttackConfig(Part):
    """Adversarial attacks on test samples; by default there are none.

    Attributes:
        names: of the attacks, e.g. pgd, apgd_l2, pgd_linf_features_targeted (`labkit.attacks.names`).
        samples: how many test samples are attacked at most, of each modality in turn; PGD on the pixels of a stamp
            takes a core about 1.5 seconds a budget and modality searched.
        severities: budgets, 1..5.
    """

    names: tuple[str, ...] = ()
    samples: Annotated[int, Field(ge=1)] = 60
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 3, 5)


class EvaluationConfig(Part):
    """What is measured on the test samples.

    Attributes:
        corruptions: of the robustness curves, of features (`labkit.corruptions.CORRUPTIONS`) or of raw items
            (`labkit.corruptions.raw.RAW`, for the modalities whose items are of its kind); empty for none.
        corruption_seeds: independent draws of each corruption; the curve is their mean.
        bootstrap: resamples of each interval.
        attacks: see `AttackConfig`.
    """

    added = ("attacks",)

    corruptions: tuple[str, ...] = ("feature_noise", "feature_masking", "missing_modality")
    corruption_seeds: Annotated[int, Field(ge=1)] = 1
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    attacks: AttackConfig = AttackConfig()


class RunConfig(Part):
    """Everything that determines a run.

    Attributes:
        data: see `DataConfig`.
        variant: name in `labkit.variants.VARIANTS`.
        options: hyper-parameters of the variant; each variant documents and checks its own.
        training: see `TrainingConfig`.
        evaluation: see `EvaluationConfig`.
        seed: of the split, the missing items, the initialization and the order of the batches.
    """

    data: DataConfig = DataConfig()
    variant: str = "clip"
    options: dict[str, Any] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def run_id(self) -> str:
        """Identifier of the run: readable head and a hash of the whole configuration."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        return f"{self.variant}-s{self.seed}-{digest}"


def parse(model: type[T], values: dict[str, Any], *, what: str) -> T:
    """`values` checked against `model`.

    Args:
        model: one of the configuration classes, or the options of a variant.
        values: nested plain values, as read from YAML, JSON or a notebook.
        what: where the values came from, for the message.

    Raises:
        ConfigError: one sentence per wrong field: its name, what was received and what is accepted.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{what}: " + "; ".join(_sentence(model, e) for e in error.errors())) from None


def of_run(values: dict[str, Any], run_id: str) -> RunConfig:
    """The configuration that a stored run was made with.

    Raises:
        ConfigError: the run was imported and has none, or a version of labkit with other settings stored it.
    """
    if "imported" in values:
        raise ConfigError(
            f"run {run_id} was imported: it has vectors, but no model to run; `labkit project`, `labkit diagnose` and "
            "the dashboard work on it"
        )
    return parse(RunConfig, values, what=f"run {run_id}")


def _sentence(model: type[BaseModel], error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error" and not name:  # of the model as a whole: the message names the fields
        return error["msg"].removeprefix("Value error, ")
    name = name or "value"
    if error["type"] != "extra_forbidden":
        return f"field {name!r} is {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
    model = _model_at(model, error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown field {name!r}; {hint}fields are {', '.join(model.model_fields) or '(none)'}"


def _model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    """The model at `path`, which may lead through lists of models."""
    for part in path:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            models = [m for m in (annotation, *get_args(annotation)) if hasattr(m, "model_fields")]
            model = cast("type[BaseModel]", models[0])
    return model
