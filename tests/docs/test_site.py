"""The reader of built pages, on pages written by hand: each fault is found."""

from pathlib import Path

from tests.site.pages import Page, all_pages, broken_links

HTML = """<html><body><a href="other.html#there">menu</a><article>
<p id="here">Text with <span class="math">x &lt; y</span> and <em>more</em>.</p>
<p>| a row | of a table |</p><div class="math">\\frac{a}{b}</div>
<img src="a.png" alt="a curve"><img src="b.png">
<a href="#here">a</a><a href="#gone">b</a><a href="other.html#there">c</a>
<a href="none.html">d</a><a href="https://example.org/#gone">e</a>
</article></body></html>"""


def write(folder: Path) -> Page:
    (folder / "page.html").write_text(HTML, "utf-8")
    (folder / "other.html").write_text('<article><p id="there">x</p></article>', "utf-8")
    (folder / "search.html").write_text("<p>not ours</p>", "utf-8")
    (folder / "_modules").mkdir()
    (folder / "_modules" / "code.html").write_text("<p>not ours</p>", "utf-8")
    return all_pages(folder)["page"]


def test_paragraphs_math_and_images(tmp_path: Path) -> None:
    page = write(tmp_path)
    assert page.paragraphs == ["Text with  and more.", "| a row | of a table |"]
    assert page.formulas == [("x < y", False), (r"\frac{a}{b}", True)]
    assert [image.alt for image in page.images] == ["a curve", ""]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    assert broken_links(write(tmp_path)) == ["#gone", "none.html"]


def test_pages_of_the_docs_only(tmp_path: Path) -> None:
    write(tmp_path)
    assert list(all_pages(tmp_path)) == ["other", "page"]
