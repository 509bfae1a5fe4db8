"""What people may type: texts, e-mail addresses, passwords, keys."""

import pytest

from app.accounts.emails import known_spelling, normalised_email
from app.accounts.passwords import LENGTH_MAX, checked_password
from app.accounts.tokens import TokenKind, digest, kind_of, new_token
from app.errors import ErrorCode, Refused
from app.idempotency import checked_key, hash_input
from app.text import checked_text, showable

FIELD = ("input", "name")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Rain in Bergen", "Rain in Bergen"),
        ("  trimmed\t", "trimmed"),
        ("e\u0301", "\u00e9"),
        ("x" * 80, "x" * 80),
        ("  " + "x" * 80 + "  ", "x" * 80),
        ("\U0001f327 rain", "\U0001f327 rain"),
    ],
)
def test_a_text_is_trimmed_and_composed(given: str, kept: str) -> None:
    assert checked_text(given, field=FIELD, maximum=80) == kept


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("", "got 0: ''"),
        ("   ", "got 0: ''"),
        ("x" * 81, "got 81: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'"),
        ("x" * 1_000_000, "got 1000000: "),
        ("a\x00b", "U+0000 at position 1"),
        ("a\nb", "U+000A at position 1"),
        ("a\ud800", "U+D800 at position 1"),
        ("a\u202eb", "U+202E at position 1"),
        ("a\u2028b", "U+2028 at position 1"),
    ],
)
def test_a_text_is_refused_with_what_is_wrong(given: str, named: str) -> None:
    with pytest.raises(Refused) as caught:
        checked_text(given, field=FIELD, maximum=80)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == FIELD
    assert named in caught.value.refusal.message


def test_line_breaks_are_kept_where_they_may_be() -> None:
    assert checked_text("a\r\nb\tc", field=FIELD, maximum=80, multiline=True) == "a\nb\tc"


def test_showable_escapes_what_cannot_be_seen() -> None:
    assert showable("a\x00\ud800\u202eb") == "a\\u0000\\ud800\\u202eb"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a@example.com", "a@example.com"),
        ("  Ann.Lee+bot@Example.COM ", "ann.lee+bot@example.com"),
        ("\uff21nn@example.com", "ann@example.com"),
        ("J\u00dcRGEN@example.com", "j\u00fcrgen@example.com"),
        ("o'hara@sub.example.co", "o'hara@sub.example.co"),
        ("x" * 64 + "@" + "d" * 63 + ".example", "x" * 64 + "@" + "d" * 63 + ".example"),
        ("x@" + ("d" * 61 + ".") * 4 + "abc", "x@" + ("d" * 61 + ".") * 4 + "abc"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_spelling(given: str, kept: str) -> None:
    assert normalised_email(given) == kept
    assert normalised_email(kept) == kept


@pytest.mark.parametrize(
    "given",
    [
        "", "@", "a@", "@example.com", "a", "a@localhost", "a@example", "a@.com", "a@-x.com", "a@x-.com", "a@x..com",
        "a@b@example.com", "a b@example.com", ".a@example.com", "a.@example.com", "a..b@example.com", "a@1.2.3.4",
        "a@b\u00fccher.de", "a\x00@example.com", "a\ud800@example.com", "a\u202e@example.com", "<a@example.com>",
        "a@" + "d" * 64 + ".com", "x@" + ("d" * 61 + ".") * 4 + "abcdefgh", "a@example.com" + " " * 2_000,
        "a@example.com\n.", "x" * 65 + "@example.com", "a" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_the_value(given: str) -> None:
    with pytest.raises(Refused) as caught:
        normalised_email(given)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "email")
    assert caught.value.refusal.message.encode()  # can be sent, whatever came in
    assert showable(given[:40])[:10] in caught.value.refusal.message
    assert known_spelling(given) is None


@pytest.mark.parametrize("good", ["8 chars!", "correct horse battery staple", "x" * 1_023 + "y", "  spaced out  "])
def test_a_long_enough_password_is_good(good: str) -> None:
    assert checked_password(good, email="ann@example.com") == good


def test_a_password_is_the_same_however_it_was_composed() -> None:
    assert checked_password("caffe\u0300 latte", email="a@example.com") == "caff\u00e8 latte"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "this one has 0"),
        ("7 chars", "this one has 7"),
        ("x" * (LENGTH_MAX + 1), "this one has 1025"),
        ("password", "anybody would guess"),
        ("PassWord123", "anybody would guess"),
        ("aaaaaaaaaaaa", "anybody would guess"),
        ("ann-lee-of-wales@example.com", "e-mail address"),
        ("ANN-LEE-OF-WALES", "e-mail address"),
    ],
)
def test_a_weak_password_is_refused_without_being_repeated(bad: str, why: str) -> None:
    with pytest.raises(Refused) as caught:
        checked_password(bad, email="ann-lee-of-wales@example.com")
    assert caught.value.refusal.code is ErrorCode.WEAK_PASSWORD
    assert caught.value.refusal.field == ("input", "password")
    assert why in caught.value.refusal.message
    if bad and bad != "password":
        assert bad not in caught.value.refusal.message


def test_half_a_surrogate_pair_is_no_password() -> None:
    with pytest.raises(Refused) as caught:
        checked_password("long enough \ud800", email="a@example.com")
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("key", ["k", "x" * 64, "order 1~!"])
def test_a_key_of_printable_ascii_is_kept(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 65, "a\n", "\u00e9", "a\x7f", "\uff11", "x" * 10_000])
def test_another_key_is_refused(key: str) -> None:
    with pytest.raises(Refused) as caught:
        checked_key(key)
    assert caught.value.refusal.code is ErrorCode.INVALID_INPUT
    assert caught.value.refusal.field == ("input", "idempotencyKey")


def test_inputs_hash_alike_only_when_they_are_alike() -> None:
    first = hash_input({"a": 10**30, "b": None, "c": "x"})
    assert first == hash_input({"c": "x", "b": None, "a": 10**30})
    assert len(first) == 32
    others: list[dict[str, object]] = [
        {"a": 10**30 + 1, "b": None, "c": "x"},
        {"a": 10**30, "b": "", "c": "x"},
        {"a": 10**30, "c": "x"},
    ]
    assert first not in {hash_input(other) for other in others}


def test_tokens_are_told_by_their_prefix_and_never_shown_whole() -> None:
    tokens = {kind: new_token(kind) for kind in TokenKind}
    assert {kind: token.text[:4] for kind, token in tokens.items()} == {
        TokenKind.SESSION: "mgs_", TokenKind.ADMIN_SESSION: "mga_", TokenKind.API_KEY: "mgk_",
    }  # fmt: skip
    for kind, token in tokens.items():
        assert kind_of(token.text) is kind
        assert len(token.text) == 47
        assert token.shown == token.text[:12]
        assert token.digest == digest(token.text)
        assert token.text not in repr(token)
    assert new_token(TokenKind.API_KEY).text != tokens[TokenKind.API_KEY].text


@pytest.mark.parametrize(
    "text", ["", "mgs_", "mgs_" + "x" * 42, "mgs_" + "x" * 44, "mgx_" + "x" * 43, "mgs_" + "\u00e9" * 43]
)
def test_what_never_was_a_token_has_no_kind(text: str) -> None:
    assert kind_of(text) is None
