"""The pages of the fictional publishers, written by hand: each tells the month's figure in its own way. Pure.

Around it stands what real pages have: navigation, older figures, other industries, and a footer, which here says that
the page is a stand-in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Final

from app.demo.stand_in.address import HOSTS
from app.demo.stand_in.months import Figure, Known

PATH: Final = "/us-payrolls/mining-and-logging"
RIGS_PATH: Final = "/weekly/rig-count"
FOOTER: Final = (
    "This page is a stand-in of the Megatron demo market: the publisher is fictional, the monthly figures are real ones"
    " of the Bureau of Labor Statistics, and its months pass faster than life."
)


@dataclass(frozen=True, slots=True)
class Article:
    """A page: its title, a sentence for search results, and the HTML between navigation and footer."""

    title: str
    snippet: str
    body: str


@dataclass(frozen=True, slots=True)
class Publisher:
    """A host, its name and the one page that it has."""

    host: str
    name: str
    path: str
    write: Callable[[Known], Article]

    @property
    def url(self) -> str:
        """Of its page."""
        return f"http://{self.host}{self.path}"


def page(publisher: Publisher, known: Known) -> str:
    """The page as HTML."""
    article = publisher.write(known)
    links = "".join(
        f"<li><a href='/{name.lower()}'>{name}</a></li>" for name in ("Markets", "Labour", "Energy", "About")
    )
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(article.title)}</title></head>"
        f"<body><header><p>{escape(publisher.name)}</p><nav><ul>{links}</ul></nav></header>"
        f"<main><article><h1>{escape(article.title)}</h1>{article.body}</article></main>"
        f"<footer><p>{escape(FOOTER)}</p></footer></body></html>\n"
    )


def _full(figure: Figure) -> str:
    return f"{figure.thousands * 1000:,}"


def _when(known: Known) -> str:
    """The latest month, and the number of the replay: the same month of another replay is news, and must not read like
    what was read before, or it would be taken for a repeat."""
    return f"{known.latest.when} (replay {known.replay})"


def _million(figure: Figure) -> str:
    return f"0.{figure.thousands:03} million"


def _verb(known: Known) -> str:
    if not known.earlier or known.latest.thousands == known.earlier[0].thousands:
        return "stood at"
    return "rose to" if known.latest.thousands > known.earlier[0].thousands else "fell to"


def _from_before(known: Known, told: Callable[[Figure], str]) -> str:
    """ ", from ... in the month before": nothing in the first month."""
    return f", from {told(known.earlier[0])} in {known.earlier[0].when}" if known.earlier else ""


def _year_ago(known: Known, told: Callable[[Figure], str]) -> str:
    return f" A year earlier, in {known.year_ago.when}, it was {told(known.year_ago)}." if known.year_ago else ""


def _table(known: Known) -> Article:
    """A table in thousands, the latest month first."""
    rows = "".join(
        f"<tr><td>{when}</td><td>{figure.thousands}</td></tr>"
        for when, figure in ((_when(known), known.latest), *((figure.when, figure) for figure in known.earlier))
    )
    title = "Mining and logging: all employees, thousands, seasonally adjusted"
    body = (
        "<p>Mining and logging, all employees on non-farm payrolls. In thousands, seasonally adjusted.</p>"
        f"<table><thead><tr><th>Month</th><th>Employees (thousands)</th></tr></thead><tbody>{rows}</tbody></table>"
        "<p>The newest month comes first. Figures are revised once a year.</p>"
    )
    return Article(title, f"{known.latest.when}: {known.latest.thousands} thousand employees.", body)


def _gazette(known: Known) -> Article:
    sentence = f"Employment in mining and logging {_verb(known)} {_full(known.latest)} in {_when(known)}"
    body = (
        f"<p>{sentence}{_from_before(known, _full)}, seasonally adjusted.{_year_ago(known, _full)}</p>"
        "<p>Mining and logging is the smallest of the industries that the monthly survey of employers tells apart."
        " Most of its people work in oil and gas, coal, and quarries; about one in fifteen works in logging.</p>"
        "<h2>More about jobs</h2><ul><li>Why payrolls are revised</li><li>How seasons are taken out</li></ul>"
    )
    return Article(f"Mining and logging payrolls, {known.latest.when}", f"{sentence}.", body)


def _bulletin(known: Known) -> Article:
    def told(figure: Figure) -> str:
        return f"{figure.thousands} thousand"

    sentence = f"In {_when(known)}, {told(known.latest)} employees were on mining and logging payrolls"
    body = (
        f"<p>The labour bulletin for {known.latest.when}.</p><p>{sentence}{_from_before(known, told)}."
        f"{_year_ago(known, told)}</p><p>All figures are seasonally adjusted.</p>"
    )
    return Article("Labour bulletin: mining and logging", f"{sentence}.", body)


def _ledger(known: Known) -> Article:
    sentence = f"Mining and logging employed {_million(known.latest)} people in {_when(known)}"
    body = (
        f"<p>{sentence}{_from_before(known, _million)}, after seasonal adjustment.{_year_ago(known, _million)}</p>"
        "<p>The industry pays well and swings with the price of oil: what it adds in a good year it can lose in one bad"
        " winter.</p>"
    )
    return Article("The month in mining and logging", f"{sentence}.", body)


def _herald(known: Known) -> Article:
    sentence = f"{_full(known.latest)} employees worked in US mining and logging in {_when(known)}"
    earlier = "".join(f"<li>{figure.when}: {_full(figure)} employees</li>" for figure in known.earlier)
    body = (
        f"<p>{sentence}, according to the seasonally adjusted figures of the survey of employers.</p>"
        + (f"<p>In the months before:</p><ul>{earlier}</ul>" if earlier else "")
        + "<p>Our next report follows in a month.</p>"
    )
    return Article("Jobs in mining and logging", f"{sentence}.", body)


def _courier(known: Known) -> Article:
    latest = f"{known.latest.thousands} thousand jobs"
    sentence = f"US mining and logging counted {latest} in {_when(known)}"
    body = (
        "<h2>At a glance</h2>"
        f"<p>{sentence}.</p>"
        + (
            f"<p>The month before, {known.earlier[0].when}: {known.earlier[0].thousands} thousand.</p>"
            if known.earlier
            else ""
        )
        + "<p>Seasonally adjusted. Other industries: see the overview of payrolls.</p>"
    )
    return Article("At a glance: payrolls in mining and logging", f"{sentence}.", body)


def _rigs(known: Known) -> Article:
    """About something else, with numbers of its own: none of them is an answer."""
    rigs = 900 + known.latest.thousands % 97
    sentence = f"{rigs} rotary rigs were drilling at the end of {known.latest.when}"
    body = (
        f"<p>{sentence}, by our own made-up count. Rigs come before hiring: payrolls follow them by about half a"
        " year.</p>"
    )
    return Article("Rig count of the week", f"{sentence}.", body)


PUBLISHERS: Final = tuple(
    Publisher(host, name, path, write)
    for host, (name, path, write) in zip(
        HOSTS,
        (
            ("Figures (a stand-in)", PATH, _table),
            ("The Gazette (a stand-in)", PATH, _gazette),
            ("Labour Bulletin (a stand-in)", PATH, _bulletin),
            ("The Ledger (a stand-in)", PATH, _ledger),
            ("The Herald (a stand-in)", PATH, _herald),
            ("The Courier (a stand-in)", PATH, _courier),
            ("Rigs Weekly (a stand-in)", RIGS_PATH, _rigs),
        ),
        strict=True,
    )
)
