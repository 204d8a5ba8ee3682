import pytest

from vasculome.errors import UserError
from vasculome.readers.safe_xml import parse_xml

BILLION = (
    b'<!DOCTYPE a [<!ENTITY x0 "ha">'
    + b"".join(b'<!ENTITY x%d "%s">' % (i, b"&x%d;" % (i - 1) * 10) for i in range(1, 10))
    + b"]><a>&x9;</a>"
)


def test_tags_lose_their_namespace(tmp_path):
    root = parse_xml(
        b'<?xml version="1.0"?><o:A xmlns:o="u"><o:B c="\xc2\xb5m"/></o:A>', where=tmp_path
    )
    assert root.tag == "A"
    assert root.find("B").get("c") == "µm"


def test_an_external_type_is_passed_over(tmp_path):
    (tmp_path / "secret").write_text("no")
    assert parse_xml(b'<!DOCTYPE a SYSTEM "file:secret"><a/>', where=tmp_path).tag == "a"


@pytest.mark.parametrize(
    "content",
    [
        BILLION,
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:secret">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "b" [<!ELEMENT a ANY>]><a/>',
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY x "y">]><a/>'.encode(
            "utf-16"
        ),
    ],
)
def test_own_declarations_are_refused(tmp_path, content):
    with pytest.raises(UserError, match="declares"):
        parse_xml(content, where=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"<a>",
        b"<a/><b/>",
        b'<?xml version="1.0" encoding="none"?><a/>',
        b"<a>&x;</a>",
    ],
)
def test_what_is_no_xml(tmp_path, content):
    with pytest.raises(UserError, match="not well-formed"):
        parse_xml(content, where=tmp_path)
