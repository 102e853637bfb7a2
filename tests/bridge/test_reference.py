"""The page of all public names is as the code is."""

from tests import reference


def test_the_page_is_as_the_code_is():
    assert reference.PAGE.read_text() == reference.page(), "python -m tests.reference writes it anew"


def test_every_name_has_its_place():
    assert reference.missing() == []
