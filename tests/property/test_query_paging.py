"""Cursors: readable by the question that got them, by nobody else."""

import base64
import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from query_api.filters import FIELDS, OPERATORS, Filter
from query_api.paging import Cursors, Place
from query_api.tenant import Tenant

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
# A NUL at its end, which no variable of an environment can hold, makes no other key of an HMAC.
secrets = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
places = st.builds(Place, timestamp_ms=st.integers(0, 9_000_000_000_000), id=text)
filters = st.lists(
    st.builds(Filter, field=st.sampled_from(FIELDS), operator=st.sampled_from(OPERATORS), value=text), max_size=4
)
moments = st.none() | st.integers(0, 9_000_000_000_000)
tenants = st.builds(Tenant, projects=st.tuples(text), key_hash=text)
questions = st.builds(Cursors, secret=secrets, tenant=tenants, filters=filters, from_ms=moments, to_ms=moments)


# The machine may be busy; what must hold is not a time.
untimed = settings(deadline=None)


@untimed
@given(question=questions, place=places)
def test_a_cursor_leads_back_to_its_place(question, place):
    """What was written is read, in URL-safe characters, also with filters in another order or said twice."""
    cursor = question.write(place)
    assert question.read(cursor) == place
    assert cursor.replace("-", "").replace("_", "").isalnum()
    again = dataclasses.replace(question, filters=[*reversed(question.filters), *question.filters])
    assert again.read(cursor) == place


@untimed
@given(question=questions, other=questions, place=places)
def test_a_cursor_of_another_question_is_none(question, other, place):
    """Another secret, project, key, filter or range reads nothing."""
    for name in ("secret", "tenant", "filters", "from_ms", "to_ms"):
        changed = dataclasses.replace(question, **{name: getattr(other, name)})
        same = set(changed.filters) == set(question.filters) if name == "filters" else changed == question
        assert (changed.read(question.write(place)) == place) == same


@untimed
@given(question=questions, place=places, data=st.data())
def test_a_changed_cursor_is_none(question, place, data):
    """Any flipped bit is noticed."""
    raw = bytearray(base64.urlsafe_b64decode(question.write(place) + "=="))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    assert question.read(base64.urlsafe_b64encode(raw).decode().rstrip("=")) is None


@untimed
@given(question=questions, cursor=st.text())
def test_nonsense_is_none(question, cursor):
    """Text that no one wrote is refused without an error."""
    assert question.read(cursor) is None
