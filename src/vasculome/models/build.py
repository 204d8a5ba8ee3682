"""Networks by name, from what their model cards say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vasculome.models.bubble_net import BubbleNet, BubbleNetDesign
from vasculome.models.site_finder import SiteFinder, SiteFinderDesign
from vasculome.models.student import Student, StudentDesign
from vasculome.models.stulm import Stulm, StulmDesign
from vasculome.models.teacher import Teacher, TeacherDesign

_ARCHITECTURES: dict[str, tuple[type[nn.Module], type]] = {
    "bubble_net": (BubbleNet, BubbleNetDesign),
    "site_finder": (SiteFinder, SiteFinderDesign),
    "student": (Student, StudentDesign),
    "stulm": (Stulm, StulmDesign),
    "teacher": (Teacher, TeacherDesign),
}


def build(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Return a new network.

    Parameters
    ----------
    architecture
        ``bubble_net``, ``site_finder``, ``student``, ``stulm`` or ``teacher``.
    arguments
        Of its design; lists stand for tuples.

    Raises
    ------
    ValueError
        If there is no such architecture, or the arguments are not its design's.
    """
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"there is no network {architecture!r}, only {sorted(_ARCHITECTURES)}")
    network, design = _ARCHITECTURES[architecture]
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    try:
        return network(design(**given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{architecture}: {error}") from error
