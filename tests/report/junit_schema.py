"""What Jenkins' junit-10.xsd allows of that which is used here."""

from __future__ import annotations

from xml.etree import ElementTree as ET

# Element -> where it may lie, attributes it must have, attributes it may have.
_SCHEMA = {
    "testsuites": (None, set(), {"name", "tests", "failures", "errors", "time", "disabled"}),
    "testsuite": ("testsuites", {"name"}, {"tests", "failures", "errors", "skipped", "time", "hostname", "id"}),
    "testcase": ("testsuite", {"name", "classname"}, {"time", "status", "assertions"}),
    "failure": ("testcase", set(), {"type", "message"}),
    "error": ("testcase", set(), {"type", "message"}),
}


def parsed(text: str) -> ET.Element:
    """The root of a valid file whose counts are true."""
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert root.tag == "testsuites"
    for element in root.iter():
        _, required, allowed = _SCHEMA[element.tag]
        assert required <= set(element.attrib) <= required | allowed
        assert all(_SCHEMA[child.tag][0] == element.tag for child in element)
    for suite in root.iter("testsuite"):
        for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            assert int(suite.attrib[attribute]) == sum(1 for _ in suite.iter(tag))
    for attribute in ("tests", "failures", "errors"):
        assert int(root.attrib[attribute]) == sum(int(suite.attrib[attribute]) for suite in root)
    return root
