"""XML from files that others wrote: no entities, no external documents."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from vasculome.errors import UserError


class _RootReachedError(Exception):
    """Ends the look at what stands before the root element."""


def parse_xml(content: bytes, *, where: Path) -> ElementTree.Element:
    """Return the root element of an XML document; tags keep no namespace.

    A document type that only names an external definition is passed over, as in TeraStitcher's
    projects; nothing is loaded. One that declares anything itself is refused: entities can grow
    without bound.

    Raises
    ------
    UserError
        Not well-formed XML, or a document with own declarations.
    """
    try:
        _check_prolog(content, where=where)
        root = ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(
            f"is not well-formed XML ({error})", where=where, fix="copy or export it again"
        ) from error
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def _check_prolog(content: bytes, *, where: Path) -> None:
    def doctype(name: str, system: str | None, public: str | None, has_subset: int) -> None:
        if has_subset:
            raise UserError(
                f"its document type {name} declares entities or elements",
                where=where,
                fix="remove the declarations in [ ] after DOCTYPE",
            )

    def element(name: str, attributes: dict[str, str]) -> None:
        raise _RootReachedError

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = element
    try:
        parser.Parse(content, True)
    except _RootReachedError:
        return
