"""Who asked, read from texts once a batch, is the same as read request by request."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from triton_models.emitter.identity import LONG_TEXT, identity_of, pairs_of
from triton_models.emitter.record import asked_by, asked_by_texts

_TEXTS = st.one_of(
    st.sampled_from(
        ["", "{}", '{"tenant":"acme"}', '{"x-meter-tenant":"initech","team":"a"}', "{"]
    ),
    st.text(max_size=40).map(lambda tenant: json.dumps({"tenant": tenant})),
    st.integers(1, 9).map(lambda n: json.dumps({"tenant": "t", "filler": "x" * LONG_TEXT * n})),
)


@given(st.lists(st.tuples(st.text(max_size=20), _TEXTS), max_size=12))
def test_a_batch_is_read_as_its_requests_are(batch: list[tuple[str, str]]) -> None:
    ids, texts = [i for i, _ in batch], [text for _, text in batch]
    one_by_one = asked_by(ids, [identity_of(pairs_of(text)) for text in texts])
    assert _told(asked_by_texts(ids, texts)) == _told(one_by_one)


def test_half_of_a_surrogate_pair_is_mended() -> None:
    assert _told(asked_by_texts(["a\ud800b"], ["{}"]))[0][0].isascii() is False


def _told(asked: bytes) -> list[tuple[str, object]]:
    """Each request's id and payer: two texts may stand for one payer."""
    document = json.loads(b"{%b}" % asked)
    payers = document["payers"]
    return [(i, payers[n]) for i, n in zip(document["requests"], document["payer"], strict=True)]
