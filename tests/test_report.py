"""The report as a reader meets it: in a browser, on a phone, on paper, and on a full disk."""

from __future__ import annotations

import os
import re
import shutil
from base64 import b64decode
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import trees
import xarray as xr
from arviz_stats import ess
from matplotlib.figure import Figure
from test_compare import result

import bayes_dasl as bd
from bayes_dasl import diagnose, report, score
from bayes_dasl.errors import MismatchError, WriteError
from bayes_dasl.reports import Report, _cards, _summary
from bayes_dasl.reports._tables import summaries
from bayes_dasl.reports._text import percent
from bayes_dasl.scores.scores import score_baselines
from bayes_dasl.verdict import Diagnosis, finding_help
from bayes_dasl.weighting import judge_mixture

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
FIGURES = (
    *("figure-forecast-hare", "figure-forecast-lynx", "figure-pit", "figure-coverage"),
    *("figure-decomposition-hare", "figure-decomposition-lynx"),
    *("figure-prior-posterior-1", "figure-prior-posterior-2", "figure-ranks-1", "figure-ranks-2"),
)
WIDTHS = (390, 1280)


def faults(browser, path: Path, *, width: int, scripts: bool = True, figures=FIGURES) -> list[str]:
    """Open a page and list what is wrong with it: messages, requests, overflow, lost figures."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=scripts
    )
    page, found = context.new_page(), []
    page.on("console", lambda m: found.append(f"console: {m.text}"))
    page.on("pageerror", lambda e: found.append(f"error: {e}"))
    page.on("request", lambda r: None if _own(r.url, path) else found.append(f"request: {r.url}"))
    page.goto(path.as_uri(), wait_until="load")
    overflow = page.evaluate("document.documentElement.scrollWidth")
    if overflow > width:
        found.append(f"overflow: {overflow} px at a width of {width} px")
    verdict = page.locator("#verdict .sentence")
    if not (verdict.is_visible() and verdict.inner_text().strip()):
        found.append("no verdict")
    if page.locator("figure img").first.bounding_box()["y"] > 700:
        found.append("no figure on the first screen")
    for name in figures:
        found += _figure_faults(page, name)
    context.close()
    return found


def _own(url: str, path: Path) -> bool:
    return url.startswith("data:") or url.split("#")[0] == path.as_uri()


def _figure_faults(page, name: str) -> list[str]:
    figure = page.locator(f"figure#{name}")
    if figure.count() != 1:
        return [f"figure {name}: {figure.count()} on the page"]
    image = figure.locator("img")
    box = image.bounding_box()
    found = []
    if not image.evaluate("i => i.complete && i.naturalWidth > 0"):
        found.append(f"figure {name}: not drawn")
    if box is None or box["width"] < 250 or box["height"] < 100:
        found.append(f"figure {name}: too small ({box})")
    if not image.get_attribute("alt") or not figure.locator("figcaption").inner_text().strip():
        found.append(f"figure {name}: no text")
    return found


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        reason = "Chromium is not installed (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def study() -> dict:
    train, test = trees.make_data()
    competitor = trees.make_fc(seed=5, network=False)
    return {
        "post": trees.make_post(),
        "fc": trees.make_fc(),
        "train": train,
        "test": test,
        "competitors": {"mechanistic": competitor},
    }


@pytest.fixture(scope="module")
def normal(study) -> Report:
    return report(
        study["post"],
        study["fc"],
        study["test"],
        title="Lynx and hare",
        name="hybrid",
        competitors=study["competitors"],
    )


@pytest.fixture(scope="module")
def page_path(normal, tmp_path_factory) -> Path:
    return normal.save(tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.thorough("390-scripts", "1280-scripts", "1280-no scripts")
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_whole_in_a_browser(browser, page_path, width, scripts):
    assert faults(browser, page_path, width=width, scripts=scripts) == []


@pytest.fixture(scope="module")
def mixed(study):
    """A mixture of the forecast and its competitor, and what is said of it."""
    made = {"hybrid": study["fc"], **study["competitors"]}
    comparison = bd.compare({"hybrid": result([0.0, -1.0]), "mechanistic": result([-0.5, -0.2])})
    mixture, verdicts = bd.mixture(made, comparison.weights), {"hybrid": diagnose(study["post"])}
    given = mixture, comparison, made, verdicts, study["post"], study["test"]
    return judge_mixture(*given, own="hybrid", science="mechanistic")


@pytest.mark.thorough
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_of_a_mixture_is_whole_in_a_browser(browser, study, mixed, tmp_path, width):
    given = {"name": "hybrid", "competitors": study["competitors"], "mixture": mixed}
    path = report(study["post"], study["fc"], study["test"], **given).save(tmp_path / "report.html")
    both = ("hybrid", "mechanistic")
    beside = [f"figure-forecast-{model}-{name}" for model in both for name in ("hare", "lynx")]
    parts = [
        f"figure-decomposition-{of}-{name}"
        for of in ("mixture", "hybrid")
        for name in ("hare", "lynx")
    ]
    figures = [name for name in FIGURES if "decomposition" not in name]
    assert (
        faults(browser, path, width=width, figures=(*figures, *beside, *parts, "figure-comparison"))
        == []
    )


@pytest.mark.thorough
def test_what_is_no_mixture_and_a_rival_of_its_name_are_refused(study, mixed, unchecked):
    with pytest.raises(MismatchError, match="mixture is what judge_mixture returned, not DataTree"):
        report(study["post"], study["fc"], study["test"], mixture=mixed.forecast)
    with pytest.raises(MismatchError, match="one of the forecasts, hybrid, not 'other'"):
        judge_mixture(
            mixed.forecast,
            mixed.comparison,
            {"hybrid": study["fc"]},
            {},
            study["post"],
            study["test"],
            own="other",
        )
    with pytest.raises(MismatchError, match="not mixture"):
        report(
            study["post"],
            study["fc"],
            study["test"],
            competitors={"mixture": study["fc"]},
            mixture=mixed,
        )


@pytest.mark.thorough
def test_fitted_data_are_never_held_out(study, undrawn):
    page = report(study["post"], study["fc"], study["train"]).html
    assert (
        "the data given here were fitted: none are held out" in page
        and "held-out value" not in page
    )
    both = xr.concat([study["train"], study["test"]], "time")
    mixed, alone = (report(study["post"], study["fc"], data).html for data in (both, study["test"]))
    scored = [
        re.findall(r"</b> on (\d+) held-out values:", unescape(page)) for page in (mixed, alone)
    ]
    assert scored[0] == scored[1] != []


@pytest.mark.thorough
def test_without_held_out_data_the_page_has_no_scores(study, undrawn):
    assert "no held-out data" in report(study["post"], study["fc"]).html


@pytest.mark.slow
def test_many_short_chains_are_shown_by_their_nested_rhat(undrawn):
    def largest(post):
        page = report(post, trees.make_fc(), trees.make_data()[1]).html
        return re.search(r"(?:largest|nested) R-hat.{0,200}?(\d\.\d{3})", page, re.DOTALL)

    post = trees.make_post(chains=64, draws=30)
    assert largest(post).group().startswith("largest")
    post.attrs |= {"nested_rhat": 1.0042, "superchains": 8}
    assert largest(post).group().startswith("nested")
    assert largest(post).group(1) == "1.004"


@pytest.mark.thorough
def test_a_fit_that_went_wrong_has_a_whole_page(browser, tmp_path):
    _, test = trees.make_data(missing=3)
    post = trees.make_post(
        failures=12, divergences=30, prior_failures=50, missing=3, stuck_chain=2, interrupted=True
    )
    fc = trees.make_fc(failures=20, noise_scale=0.8)
    title = "A title <b>with</b> marks & averylongwordwithoutanybreakwhatsoever" * 2
    path = report(post, fc, test, title=title).save(tmp_path / "bad.html")
    for width in WIDTHS:
        assert faults(browser, path, width=width) == []


MUTATIONS = {
    "an image from elsewhere": (
        "</header>",
        '</header><img src="http://127.0.0.1:9/spy.png" alt="">',
        "request|console",
    ),
    "a style sheet from elsewhere": (
        "</head>",
        '<link rel="stylesheet" href="http://127.0.0.1:9/spy.css"></head>',
        "request|console",
    ),
    "a script": ("</head>", "<script>console.log(1)</script></head>", "console"),
    "an overflow": ("</header>", '</header><div style="width:90rem">x</div>', "overflow"),
    "a table that does not scroll": (".scroll {", ".unscroll {", "overflow"),
    "a lost figure": ('id="figure-pit"', 'id="figure-pat"', "figure-pit"),
    "a torn figure": ("data:image/svg+xml;base64,PD94", "data:image/svg+xml;base64,AAAA", "drawn"),
    "a page of text first": ("<main>", '<main><p style="height: 60rem">x</p>', "first screen"),
    "no verdict": ('class="sentence"', 'class="sentence" hidden', "no verdict"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_browser_check_catches(browser, normal, tmp_path, mutation):
    old, new, expected = MUTATIONS[mutation]
    assert old in normal.html
    path = Report(normal.html.replace(old, new)).save(tmp_path / "mutant.html")
    found = faults(browser, path, width=390)
    assert any(re.search(expected, fault) for fault in found), found


@pytest.mark.thorough("mixture")
@pytest.mark.parametrize("which", ["normal", "mixture"])
def test_a_brief_report_is_one_page_of_paper_and_fits_on_a_phone(
    browser, study, mixed, tmp_path, which
):
    given = {"name": "hybrid", "competitors": study["competitors"]}
    given |= {"mixture": mixed} if which == "mixture" else {}
    brief = bd.ReportOptions(brief=True, source="a book", licence="CC0-1.0")
    found = report(study["post"], study["fc"], study["test"], options=brief, **given)
    path = found.save(tmp_path / "brief.html")
    figures = ("figure-forecast-hare", "figure-forecast-lynx")
    assert faults(browser, path, width=390, figures=figures) == []
    page = browser.new_page()
    page.goto(path.as_uri())
    paper = page.pdf(prefer_css_page_size=True)
    page.close()
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", paper)) == 1
    for part in ("scores", "parameters", "methods"):
        assert f'<section id="{part}">' in found.html
    for part in ("calibration", "uncertainty", "chains", "provenance"):
        assert f'<section id="{part}">' not in found.html


@pytest.mark.thorough
def test_print_fits_on_paper(browser, page_path):
    context = browser.new_context(viewport={"width": 680, "height": 1000})
    page = context.new_page()
    page.emulate_media(media="print")
    page.goto(page_path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert not page.locator("nav").is_visible()
    assert page.locator("details li").first.bounding_box()["height"] > 5  # closed, yet printed
    context.close()


def test_the_page_loads_nothing_and_runs_nothing(normal):
    assert "<script" not in normal.html
    assert "javascript:" not in normal.html
    loads = r"""(?:src|srcset|(?<!<a )href|url\()\s*=?\s*["']?(?:https?:)?//"""
    assert not re.search(loads, normal.html)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'http-equiv="Content-Security-Policy" content="{policy}' in normal.html
    assert len(normal.html.encode()) < 2_000_000


def test_the_page_begins_with_badges_skill_and_figure_then_the_verdict(study, normal):
    diagnosis = diagnose(
        study["post"], study["fc"], study["test"], competitors=study["competitors"]
    )
    text = unescape(normal.html)
    assert text.index('id="figure-forecast-hare"') < text.index(diagnosis.verdict)
    assert badges_of(text) == [("Sampling", diagnosis.sampling), ("Fit", diagnosis.model)]
    own = score(study["fc"], study["test"]).loc["all", "crps"]
    said, sentence = re.search(r'class="skill"><b>([^<]+)</b> ([^<]+)<', text).groups()
    assert said == f"CRPS {own:.3g} thousand pelts"
    for other in ("mechanistic", "climatology", "persistence"):
        assert other in sentence


def badges_of(text: str) -> list[tuple[str, ...]]:
    """Aspect and level of each badge."""
    return re.findall(r'<li class="badge .*?</span> (\w+): ([\w ]+)</li>', text)


def test_with_many_competitors_a_mixture_begins_with_its_figure_too(study, mixed, undrawn):
    competitors = study["competitors"] | {f"other {i}": trees.make_fc(seed=i) for i in range(4)}
    given = {"name": "hybrid", "competitors": competitors, "mixture": mixed}
    page = report(study["post"], study["fc"], study["test"], **given).html
    first = re.sub(r"<[^>]+>", " ", page.partition("<main>")[2].partition("<img")[0]).split()
    assert len(first) < 70 and "CRPS" in first
    assert "4 more under Scores" in " ".join(first)  # two baselines and two competitors are there


def test_a_bad_sampling_is_no_bad_fit_and_what_was_not_looked_at_is_not_good(study):
    stuck, fc, test = trees.make_post(stuck_chain=2), study["fc"], study["test"]
    assert _summary.badges(diagnose(stuck, fc, test)) == [("Sampling", "bad"), ("Fit", "good")]
    assert _summary.badges(diagnose(stuck)) == [("Sampling", "bad"), ("Fit", "not checked")]
    assert _summary.badges(Diagnosis(())) == [("Sampling", "not checked"), ("Fit", "not checked")]


def test_one_observable_has_the_width_of_the_page_and_is_not_scored_without_data(normal, undrawn):
    wide = r'id="figure-forecast-hare">\s*<picture>\s*<source media="'
    alone = {"observables": ("hare",)}
    page = report(trees.make_post(**alone), trees.make_fc(**alone)).html
    assert re.search(wide, page) and not re.search(wide, normal.html)
    head = page.partition("<main>")[2].partition("<figure")[0]
    assert "The forecast was not scored" in head and "CRPS" not in head


def test_a_wide_figure_is_twice_as_wide_and_as_high():
    drawn = _cards.card(Figure((2.0, 1.0)), "x", "", "", "")
    sizes = []
    for uri in (drawn.uri, drawn.wide_uri, drawn.uri):
        svg = b64decode(uri.partition(",")[2]).decode()
        sizes.append(re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    assert sizes == [("144", "72"), ("288", "72"), ("144", "72")]


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("divergences", "divergences"),
        ("R-hat of science parameters", "r-hat"),
        ("nested R-hat of trajectories", "nested-r-hat"),
        ("effective sample size of vector field", "effective-sample-size"),
        ("against seasonal climatology", "against"),
        ("hybrid against science", "against"),
        ("prior of rate of growth", "prior"),
        ("order of residuals of hare", "order-of-residuals"),
        ("residuals of hare", "residuals"),
        ("scale of hare differs between members", "scale"),
        ("unknown function closure", "unknown-function"),
        ("unknown functions", "unknown-function"),
        ("stuck chains 1, 3", "stuck"),
        ("single run", "single"),
        ("hybrid: extrapolation of closure", "extrapolation"),
        ("finite hare", "finite"),
        ("held-out data", "held-out-data"),
        ("lower bound of rate", "lower-bound"),
    ],
)
def test_a_kind_of_finding_has_one_name_whatever_it_is_about(subject, name):
    assert finding_help.finding_name(subject) == name


def test_help_is_a_link_only_where_the_documentation_is(study, normal, undrawn, monkeypatch):
    def address(*links: str) -> str:
        held = Metadata({"Project-URL": links})
        monkeypatch.setattr(finding_help.metadata, "metadata", lambda _: held)
        finding_help.documentation.cache_clear()
        return finding_help.help_address("divergences")

    for links in ((), ("Documentation, https://docs.example.org/x",), ("Source, https://a.eu",)):
        assert address(*links) == ""
    known = address("Source, https://a.eu", "Documentation, https://docs.a.eu/bayes/")
    assert known == "https://docs.a.eu/bayes/reference/findings/#divergences"
    post = trees.make_post(divergences=30)
    assert f'Help: <a href="{known}">divergences</a>' in report(post, study["fc"]).html
    assert "Help: see Findings: r-hat" in normal.html
    finding_help.documentation.cache_clear()


class Metadata(dict):
    """Metadata of a package, as `importlib` returns them."""

    def get_all(self, name):
        return self.get(name)


@pytest.mark.thorough
@pytest.mark.parametrize("chains", [1, 4])
def test_page_verdict_and_scores_say_the_same_numbers(undrawn, chains):
    """Also where one observable has fewer data, a draw is not a number, a competitor is better, and
    there is one chain.
    """
    _, test = trees.make_data()
    test["hare"].values[:5] = np.nan
    post = trees.make_post(chains=chains, autocorrelation=0.6)
    post["posterior"]["death"].values[0, 7] = np.nan
    fc, better = (
        trees.make_fc(chains=chains, failures=6, noise_scale=0.04),
        trees.make_fc(chains=chains, seed=5),
    )
    page = report(post, fc, test, name="narrow", competitors={"wide": better}).html
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())
    told = {
        f.subject: f.message
        for f in diagnose(post, fc, test, competitors={"wide": better}).findings
    }
    table = score(fc, test)

    inside, of = map(int, re.search(r"hold (\d+) of (\d+) values", told["held-out data"]).groups())
    assert (inside / of, of) == (
        table.loc["all", "coverage_90"],
        table.loc["all", "n"],
    ) and of == 11
    assert f"90 % coverage {percent(inside / of)} of test values inside" in text
    lower = re.search(r"its CRPS is (\d+)% lower", told["against wide"])[1]
    assert f"worse than wide, whose CRPS is {percent(int(lower) / 100)} lower" in text
    rhat = re.search(r"highest (\d\.\d{3})", told["R-hat of science parameters"])[1]
    sizes = told["effective sample size of science parameters"]
    bulk, tail = re.search(r"bulk (\d+) .* tail (\d+) \((\S+)\)", sizes).groups()[:2]
    assert f"largest R-hat {rhat} science parameters" in text
    assert f"lowest bulk ESS {bulk} science parameters" in text
    worst = min(float(row["ess_tail"]) for _, row in summaries(post).iterrows())
    assert f"{worst:.0f}" == tail
    failed = re.search(r"failed in (\d+ of \d+) forecast draws", told["solver failures"])[1]
    assert f"{failed} draws failed in the solver or are not finite" in text


@pytest.mark.thorough
def test_solver_failures_are_named_in_the_verdict(study, undrawn):
    post = trees.make_post(prior_failures=50, failures=8)
    text = unescape(report(post, trees.make_fc(failures=20), study["test"]).html)
    sentence = re.search(r'class="sentence">([^<]+)<', text)[1]
    assert all(count in sentence for count in ("50 of 500", "8 of 800", "20 of 800"))


def test_the_star_marks_the_best_of_each_column(study, normal):
    tables = {
        "hybrid": score(study["fc"], study["test"]),
        "mechanistic": score(study["competitors"]["mechanistic"], study["test"]),
        **score_baselines(study["train"], study["test"]),
    }
    rows = re.findall(
        r'<th scope="row">([^<]+)</th>((?:<td class="(?:best|plain)">.*?</td>)+)', normal.html
    )
    assert [name for name, _ in rows] == list(tables) * 3
    for group, observable in enumerate(("all", "hare", "lynx")):
        cells = {n: re.findall(r'class="(\w+)">([^<]*)', c) for n, c in rows[4 * group :][:4]}
        for column, field in enumerate(("crps", "log_score", "interval_score_90", "rmse", "mae")):
            best = min(tables, key=lambda n: tables[n].loc[observable, field])
            assert [n for n in cells if cells[n][column][0] == "best"] == [best]
            assert float(cells[best][column][1]) == pytest.approx(
                tables[best].loc[observable, field], rel=5e-3
            )


def test_parameters_show_prior_and_posterior_and_weights_one_row_an_array(study, normal):
    text = unescape(normal.html)
    for name, (path, units, *_) in trees.SCIENCE.items():
        row = re.search(rf'<th scope="row" title="{re.escape(path)}">.*?</tr>', text)[0]
        assert name in row
        assert units in row
        assert "LogNormal" in row
        mean = float(study["post"]["posterior"][name].mean())
        low, high = np.quantile(study["post"]["posterior"][name], [0.05, 0.95])
        shown = [float(x) for x in re.findall(r"-?\d+\.?\d*", re.sub(r"<t[hd].*?>", " ", row))]
        for value in (mean, low, high):
            assert np.isclose(shown, value, rtol=0.02).any()
    for name in trees.WEIGHTS:
        assert text.count(f'closure.module.{name}"') == 1


def test_the_tail_that_is_tabulated_is_that_of_the_interval(study):
    """The table holds an interval of 90 %, and the effective sample size of its ends."""
    post = study["post"]
    tails = ess(post["posterior"].to_dataset()[["birth"]], method="tail", prob=(0.05, 0.95))
    assert summaries(post).loc["birth", "ess_tail"] == pytest.approx(float(tails["birth"]))


def test_provenance(normal):
    for fact in ("0.22.0", "0123456789abcdef" * 4, "21.5 s", "2026-01-02T03:04"):
        assert fact in normal.html
    # The settings are a table; no constructor call is printed.
    assert "NUTS(" not in normal.html
    for name, value in (("chains", 4), ("warmup", 300), ("draws", 200)):
        assert f'<tr><th scope="row">{name}</th><td class="text">{value}</td></tr>' in normal.html


@pytest.mark.thorough
def test_user_text_is_escaped(study, undrawn):
    spell, names = "<script>alert(1)</script>", {"hare": "<script>alert(2)"}

    def rename(ds: xr.Dataset) -> xr.Dataset:
        ds = ds.rename({old: new for old, new in names.items() if old in ds})
        for v in ds.data_vars.values():
            v.attrs |= {"units": '"><img src=x>', "long_name": spell}
        return ds

    def cursed(tree: xr.DataTree) -> xr.DataTree:
        renamed = tree.map_over_datasets(rename)
        renamed.attrs = tree.attrs | {"engine": spell}
        return renamed

    page = report(
        cursed(study["post"]),
        cursed(study["fc"]),
        rename(study["test"]),
        title=spell,
        name=spell,
        competitors={f"competitor {spell}": cursed(study["competitors"]["mechanistic"])},
    ).html
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.slow
def test_the_same_study_gives_the_same_page(study):
    post = trees.make_post(draws=50, network=False, observables=("hare",))
    fc = trees.make_fc(draws=50, network=False, observables=("hare",))
    pages = {report(post, fc, study["test"]).html for _ in range(2)}
    assert len(pages) == 1


@pytest.mark.thorough
def test_without_test_data_nothing_is_scored(study, undrawn):
    page = report(study["post"], study["fc"], None).html
    assert 'id="scores"' not in page
    assert 'id="figure-pit"' not in page
    assert "no held-out data" in page
    assert 'id="figure-forecast-hare"' in page


@pytest.mark.thorough
def test_without_a_network_there_is_no_split(study, undrawn):
    post, fc = trees.make_post(network=False, chains=1), trees.make_fc(network=False, chains=1)
    page = report(post, fc, study["test"]).html
    assert "<em>epistemic</em>" in page
    assert "Numbers of unknown functions" not in page
    assert "two halves of the one chain" in page


def test_groups_that_say_the_same_are_explained(study, normal, undrawn):
    assert "vanish on average" in normal.html
    fc = study["fc"].copy(deep=True)
    fc["posterior"]["layers.0.bias"].values[..., 0] = fc["posterior"]["birth"].values
    assert "both count it" in report(study["post"], fc, study["test"]).html
    fc["posterior"] = fc["posterior"].to_dataset().drop_vars(trees.WEIGHTS)
    page = report(study["post"], fc, study["test"]).html
    assert "vanish on average" not in page
    assert "both count it" not in page


@pytest.mark.slow
def test_a_forecast_of_nothing_but_failures_still_reports():
    _, test = trees.make_data()
    fc = trees.make_fc(chains=1, draws=30, failures=30, network=False)
    page = report(trees.make_post(network=False), fc, test).html
    assert "30 of 30" in page
    assert "No test value could be scored" in page


@pytest.mark.thorough
def test_one_draw_is_said_to_have_no_epistemic_uncertainty(undrawn):
    fc = trees.make_fc(chains=1, draws=1)
    page = report(trees.make_post(), fc, trees.make_data()[1]).html
    assert (
        "One draw has no epistemic uncertainty: what is known of the variance after the training "
        "data" in page
    )
    assert "No predictive variance" not in page


@pytest.mark.slow
def test_many_observables_and_parameters_are_capped_and_said_so(study):
    def crowd(ds: xr.Dataset) -> xr.Dataset:
        extra = {f"hare{i}": ds["hare"] for i in range(10)} if "hare" in ds else {}
        extra |= {f"rate{i}": ds["birth"] for i in range(70)} if "birth" in ds else {}
        return ds.assign(extra)

    post, fc = (study[k].map_over_datasets(crowd) for k in ("post", "fc"))
    page = report(post, fc, crowd(study["test"])).html
    assert page.count('id="figure-forecast') == 8
    assert "The first 8 of 12 observables" in page
    assert "The first 60 of 78 science parameters" in page
    assert len(page) < 4_000_000


def test_a_rival_may_not_take_a_name_that_is_taken(study):
    with pytest.raises(MismatchError, match="climatology"):
        report(study["post"], study["fc"], study["test"], competitors={"climatology": study["fc"]})


def test_a_recalibrated_rival_is_drawn_and_never_passes_for_the_model(study, undrawn):
    post, fc, test = study["post"], study["fc"], study["test"]
    new = xr.DataTree.from_dict(
        {"predictions": fc["predictions"].to_dataset().sel(time=test["time"])}
    )
    new.attrs = {"recalibrated": "recalibrated by a test", "train_end": 1912.0, "known_level": 0.92}
    page = report(post, fc, test, competitors={"widened": new}).html
    assert 'id="figure-recalibrated-widened-hare"' in page and "against widened" in page
    assert "widened is recalibrated by a test: no posterior predictive" in page
    with pytest.raises(MismatchError, match=r"recalibrated by a test.*model's own"):
        report(post, new, test)


def test_rivals_are_forecasts_by_name(study, unchecked):
    with pytest.raises(
        MismatchError, match="competitors must be a dict of forecasts by name, not list"
    ):
        report(study["post"], study["fc"], study["test"], competitors=[study["fc"]])


def test_test_data_of_other_times_are_refused(study):
    later = study["test"].assign_coords(time=study["test"]["time"] + 1000)
    with pytest.raises(MismatchError, match="time"):
        report(study["post"], study["fc"], later)


def test_a_notebook_shows_the_page_in_a_frame_that_keeps_its_styles():
    shown = Report('<style>p {color: "red"}</style>')
    assert "<style" not in shown._repr_html_()
    assert shown.html in unescape(shown._repr_html_())
    assert len(repr(shown)) < 100


def test_save_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self, text, **_):
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WriteError, match=r"report\.html.*No space left"):
        Report("new").save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_save_into_no_folder_names_the_path(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match=r"file.report\.html"):
        Report("new").save(tmp_path / "file" / "report.html")
    assert Report("new").save(tmp_path / "made" / "a.html").read_text() == "new"
    assert Report("new").save(str(tmp_path / "a.html")).read_text() == "new"


def test_engines_without_chains_show_their_members_and_no_rhat(undrawn):
    post = trees.make_post()
    post.attrs |= {"draws_are": "members (17 of 20 kept)", "markov": 0}
    steps = {"step": np.arange(1, 101), "look": [50, 100]}
    curve = np.linspace(0.0, -5.0, 100)[None]
    terms = {name: (("member", "step"), curve) for name in ("loss", "data", "science", "network")}
    looks = {"held_out": (("member", "look"), curve[:, 49::50])}
    post["training"] = xr.DataTree(xr.Dataset(terms | looks, steps))
    page = report(post, trees.make_fc(), trees.make_data()[1]).html
    assert "members (17 of 20 kept)" in page and "figure-training" in page
    assert "R-hat" not in page and 'id="chains"' not in page


def test_parts_of_several_observables_stand_together_whatever_their_units():
    from bayes_dasl.reports import _page

    one = _page._variance_parts(trees.make_fc(), ["hare"])
    parts = xr.concat(
        [
            one.assign_coords(observable=[name], units=("observable", [unit]))
            for name, unit in zip("abc", "msK", strict=True)
        ],
        "observable",
    )
    found = _page._epistemic_parts_drawn(parts)
    assert {*found} == {"science", "network", "interaction"}
    assert all(values["observable"].values.tolist() == [*"abc"] for values in found.values())


def test_parts_that_are_averaged_over_places_are_drawn():
    """A mean over places turns whether the split is known into a number."""
    parts = bd.decompose(trees.make_fc()).expand_dims(place=3)
    drawn = bd.plots.epistemic_parts(parts)
    averaged = bd.plots.epistemic_parts(parts.mean("place"))
    assert {*averaged} == {*drawn} == {"science", "network", "interaction"}
