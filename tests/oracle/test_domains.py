"""Registrable domains: the public suffix list's own vectors, what is no host, and what must not pass for another."""

import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.oracle.domains import registrable_domain


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("news.example", "news.example"),
        ("a.news.example", "news.example"),
        ("https://a.b.news.example/path?x=other.example#at", "news.example"),
        ("HTTPS://News.Example", "news.example"),
        ("http://news.example.", "news.example"),
        ("http://news.example:8080/x", "news.example"),
        ("news.example:8080", "news.example"),
        ("https://user:secret@news.example/", "news.example"),
        ("https://other.example@news.example/", "news.example"),
        ("https://news.example?@other.example", "news.example"),
        ("https://news.example#@other.example", "news.example"),
        ("  https://news.example/  ", "news.example"),
        ("https://www.bbc.co.uk/news", "bbc.co.uk"),
        ("a_b.example.com", "example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("www.bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("www。news．example", "news.example"),
        ("食狮.公司.cn", "xn--85x722f.xn--55qx5d.cn"),
        ("a.github.io", "a.github.io"),
        ("https://x.a.github.io/", "a.github.io"),
        ("https://1.2.3.4.example", "4.example"),
        ("r3---sn.example.com", "example.com"),
    ],
)
def test_what_was_registered_is_found(url: str, domain: str) -> None:
    assert registrable_domain(url) == domain


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        ".",
        "..",
        "localhost",
        "http://localhost:8000/",
        "com",
        "co.uk",
        "github.io",
        "公司.cn",
        "127.0.0.1",
        "http://127.0.0.1:8601/",
        "http://169.254.169.254/latest",
        "127.1",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://news.0x7f/",
        "http://１２７.0.0.1/",
        "[::1]",
        "http://[2001:db8::1]/",
        "http://[::ffff:127.0.0.1]:80/",
        "ftp://news.example/",
        "file:///etc/hosts",
        "javascript://news.example/",
        "//news.example/",
        "http:///news.example",
        "http://",
        "a..example",
        ".news.example",
        "-a.example",
        "a-.example",
        "a b.example",
        "news.example\\@other.example",
        "http://news.example\\.other.example/",
        "http://ne%77s.example/",
        "http://a@b@news.example/",
        "http://news\n.example/",
        "http://news.example:80:81/",
        "http://news.example:x/",
        "\0.example",
        "a" * 64 + ".example",
        ("a" * 60 + ".") * 5 + "example",
        "xn--\u0301.example",
        "http://" + "a" * 5000 + ".example/",
    ],
)
def test_addresses_suffixes_and_nonsense_have_none(url: str) -> None:
    assert registrable_domain(url) is None


def test_neighbours_under_a_private_suffix_are_different_people() -> None:
    assert registrable_domain("https://a.github.io/") != registrable_domain("https://b.github.io/")
    assert registrable_domain("https://x.a.github.io/") == registrable_domain("https://y.a.github.io/")


def test_the_vectors_of_the_public_suffix_list_hold() -> None:
    text = (files("publicsuffixlist") / "test_psl.txt").read_text(encoding="utf-8")
    vectors = re.findall(r"^checkPublicSuffix\('([^']+)', (?:'([^']+)'|null)\);$", text, flags=re.MULTILINE)
    assert len(vectors) > 70
    wrong = [(host, domain) for host, domain in vectors if registrable_domain(host) != (_ascii(domain) or None)]
    assert wrong == []


def _ascii(domain: str) -> str:
    return domain.encode("idna").decode("ascii")


LABEL = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@given(LABEL, LABEL, st.lists(LABEL, max_size=4), st.integers(1, 65_535))
def test_whatever_stands_around_a_domain_changes_nothing(name: str, top: str, below: list[str], port: int) -> None:
    host = ".".join((*below, name, f"{top}example"))
    expected = f"{name}.{top}example"
    for url in (host, host.upper(), f"{host}.", f"https://{host}:{port}/a.b/c?d=e.f", f"http://u:p@{host}#x.y"):
        assert registrable_domain(url) == expected


@given(st.text(max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    domain = registrable_domain(text)
    assert domain is None or registrable_domain(domain) == domain
