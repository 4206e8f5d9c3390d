"""Variants: methods of alignment, one per file, all with the `Aligner` protocol.

    aligner = VARIANTS.get("gotma")(options={"w_ot": 1.0}, seed=0).fit(train, validation)
    shared = aligner.embed(test)

Trained variants subclass `Trained` and list their loss terms; closed forms subclass `ClosedForm` and solve for one
linear map per modality. Hyper-parameters are a pydantic model in the same file, with the range that `labkit tune`
searches.
"""

from __future__ import annotations

from pathlib import Path

from labkit.registry import Registry

VARIANTS = Registry("variant", __name__)

from labkit.variants._base import AlignerBase as AlignerBase  # noqa: E402
from labkit.variants._base import Options as Options  # noqa: E402
from labkit.variants._closed import ClosedForm as ClosedForm  # noqa: E402
from labkit.variants._trained import Trained as Trained  # noqa: E402
from labkit.variants._trained import TrainedOptions as TrainedOptions  # noqa: E402

__all__ = ["VARIANTS", "AlignerBase", "ClosedForm", "Options", "Trained", "TrainedOptions", "get", "load"]


def get(name: str) -> type[AlignerBase]:
    """The variant called `name`.

    Raises:
        UnknownNameError: none has that name; the message lists the nearest.
    """
    variant = VARIANTS.get(name)
    assert isinstance(variant, type)
    assert issubclass(variant, AlignerBase)
    return variant


def load(folder: Path) -> AlignerBase:
    """A fitted aligner from the folder that `save` wrote.

    Raises:
        FileNotFoundError: no aligner in `folder`.
    """
    return get(AlignerBase.saved_name(folder)).load(folder)
