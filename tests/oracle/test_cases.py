"""Stored cases: canonical JSON, from which the same case comes again and is judged alike."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.money import PRICE_UNIT
from app.oracle.cases import FeedCase, FeedReading, SearchCase, content_hash, decode_case, encode_case
from app.oracle.judgement import judge
from app.oracle.kinds import PERCENT_UNIT
from tests.oracle.search_cases import AT, FAR, FAR_PENDING, TWO, A, evidence

FEEDS = FeedCase(
    readings=(FeedReading("rates", "102", AT, ((AT - timedelta(seconds=3), "101"),), "1", "0", 5, 10 * PERCENT_UNIT),),
    min_feeds=1,
    fundamental=100 * PRICE_UNIT,
    is_first=False,
    at=AT + timedelta(microseconds=1),
    fresh_seconds=60,
)


def texts_of(of: SearchCase) -> dict[str, str]:
    return {content_hash(one.text): one.text for one in of.pages}


def test_a_case_is_stored_as_canonical_json() -> None:
    assert encode_case(FEEDS) == (
        '{"at":"2026-03-14T12:00:00.000001+00:00","fresh_seconds":60,"fundamental":100000000000000,'
        '"fundamental_weight":200000000,"is_first":false,"kind":"feeds","min_feeds":1,"policy":1,"readings":[{"at":"2026-03-14T12:00:00+00:00",'
        '"max_delta_percent":10000000000,"offset":"0","samples":[["2026-03-14T11:59:57+00:00","101"]],"scale":"1",'
        '"source":"rates","twap_minutes":5,"value":"102"}]}'
    )


def test_a_stored_case_is_the_same_case_with_the_same_verdict() -> None:
    full = replace(
        TWO,
        duplicates=((0, 1), (1,)),
        used=evidence(TWO, 0, figure="1/3"),
        pending=(FAR_PENDING,),
        at=AT.astimezone(tz=None),
        configuration=replace(TWO.configuration, allowed_domains=("a.example",), question="Wie viel? 😀"),
    )
    for one in (TWO, FAR, replace(TWO, output=None), replace(TWO, output="\ud800 \x00"), full, FEEDS):
        stored = encode_case(one)
        again = decode_case(stored, texts_of(one) if isinstance(one, SearchCase) else {})
        assert stored.isascii()
        assert again == one
        assert encode_case(again) == stored
        assert judge(again) == judge(one)


def test_a_stored_case_has_hashes_in_place_of_texts() -> None:
    stored = json.loads(encode_case(TWO))
    assert [sorted(one) for one in stored["pages"]] == [["content_hash", "retrieved_at", "title", "url"]] * 2
    assert stored["pages"][0]["content_hash"] == content_hash(TWO.pages[0].text)
    assert list(stored) == sorted(stored)


def test_the_hash_is_of_the_utf_8_bytes() -> None:
    assert content_hash("π") == "2617fcb92baa83a96341de050f07a3186657090881eae6b833f66a035600f35a"


def test_texts_that_are_missing_or_were_changed_are_told() -> None:
    stored, texts = encode_case(TWO), texts_of(TWO)
    first = content_hash(TWO.pages[0].text)
    with pytest.raises(ValueError, match=f"the text of {A} is missing: its hash is {first}"):
        decode_case(stored, {key: text for key, text in texts.items() if key != first})
    with pytest.raises(ValueError, match=f"the text of {A} was changed"):
        decode_case(stored, {**texts, first: texts[first] + " "})


@pytest.mark.parametrize("policy", [0, 2, "1", None])
def test_another_policy_is_refused(policy: object) -> None:
    stored = json.dumps({**json.loads(encode_case(FEEDS)), "policy": policy})
    with pytest.raises(ValueError, match=f"policy {policy!r}, and only policy 1 is known"):
        decode_case(stored, {})


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"policy":1}', '{"policy":1,"kind":"x"}', '{"policy":1,"kind":"feeds"}', "[" * 99999],
)
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no case of the oracle|Expecting value"):
        decode_case(text, {})


def test_a_search_is_not_judged_by_the_configuration_of_feeds() -> None:
    stored = json.loads(encode_case(TWO))
    stored["configuration"] = {"kind": "feeds", "feeds": [], "min_feeds": 1}
    with pytest.raises(ValueError, match="no case of the oracle"):
        decode_case(json.dumps(stored), texts_of(TWO))


def test_times_without_a_zone_cannot_be_stored() -> None:
    with pytest.raises(TypeError, match="only times that know their zone"):
        encode_case(replace(FEEDS, at=datetime(2026, 3, 14)))  # noqa: DTZ001 - the point of it
