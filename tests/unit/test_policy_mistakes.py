"""Every mistake that a person can make in a policy is refused, with where it is and what is wrong with it."""

from __future__ import annotations

import jsonschema
import pytest

from nats_mesh.errors import PolicyError
from nats_mesh.policy import json_schema, parse
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import read
from tests.policy_mistakes import BAD
from tests.policy_samples import written

EDITOR = jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize(("kind", "spec", "complaint", "seen_by_editors"), BAD)
def test_a_mistake_is_refused(kind: str, spec: str, complaint: str, seen_by_editors: bool) -> None:
    """In words that name it; and where a JSON Schema can know, editors mark it while it is written."""
    text = written(kind, spec)
    with pytest.raises(PolicyError) as caught:
        parse(text)
    assert complaint in str(caught.value)
    (document,) = read(text.encode(), "x.yaml", Problems())
    assert EDITOR.is_valid(document.plain()) is not seen_by_editors
