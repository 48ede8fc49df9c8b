"""The viewer in a real browser: filter, click, key and the table of marks."""

from __future__ import annotations

import shutil
import time

import pytest
from astropy.io import fits

from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.report.panels import Pixels
from deeplegato_pp.view.app import Viewer, serve
from deeplegato_pp.view.marks import Marks
from deeplegato_pp.view.plot import LOG_TICKS
from fake_model import truth_image
from result_tables import make_table

pytestmark = [  # what Panel and Bokeh use of newer releases of pandas
    pytest.mark.filterwarnings(f"ignore::{kind}Warning")
    for kind in ("Deprecation", "PendingDeprecation", "Future")
]

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

FIND = """
function deep(selector, root) {
  const found = [...root.querySelectorAll(selector)];
  for (const element of root.querySelectorAll("*")) {
    if (element.shadowRoot) { found.push(...deep(selector, element.shadowRoot)); }
  }
  return found;
}
return deep(arguments[0], document);
"""
"""Elements by selector, through the shadow roots in which the page is built."""

POINT = """
function figure(view) {
  if (view.model && view.model.type === "Figure") { return view; }
  for (const child of view.child_views || []) {
    const found = figure(child);
    if (found) { return found; }
  }
}
const roots = Bokeh.index.roots || Object.values(Bokeh.index);
const view = roots.map(figure).find((found) => found);
const data = view.model.renderers.find((r) => r.name === "points").data_source.data;
const place = view.el.getBoundingClientRect();
const k = arguments[0];
return [place.left + view.frame.x_scale.compute(data.x[k]),
        place.top + view.frame.y_scale.compute(data.y[k])];
"""
"""Where a point of the plot is in the window. [px]"""

TICKS = """
return new Function("cb_data", arguments[0])({start: arguments[1], end: arguments[2]});
"""
"""The ticks of a logarithmic axis."""


@pytest.fixture
def page(tmp_path):
    missing = [n for n, v in {"chromium": BROWSER, "chromedriver": DRIVER}.items() if not v]
    if missing:
        pytest.skip(f"NO BROWSER: {' and '.join(missing)} not installed, the viewer is not tested")
    pytest.importorskip("panel", reason="NO PANEL: the viewer is not tested")
    webdriver = pytest.importorskip("selenium.webdriver", reason="NO SELENIUM")
    fits.writeto(tmp_path / "g.fits", truth_image().numpy() + 5.0)
    table = make_table(60)
    table["sersic_index"] *= 1.0 + 0.02 * (table["magnitude"].value - 21.0)
    marks = Marks(tmp_path / "t.marks.ecsv", list(table["name"]))
    pixels = Pixels((tmp_path,), lambda path: Inputs((path,)))
    server = serve(lambda: Viewer(table, pixels, marks, "Field"), "Field", show=False, block=False)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1500,1200"):
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Page(driver, server), marks
    finally:
        driver.quit()
        server.stop()
        server.join()


class Page:
    """The page in the browser."""

    def __init__(self, driver, server) -> None:
        self.driver = driver
        end = time.monotonic() + 20
        while not (port := _port_of(server)):
            assert time.monotonic() < end
            time.sleep(0.05)
        driver.get(f"http://localhost:{port}")

    def all(self, selector: str) -> list:
        return self.driver.execute_script(FIND, selector)

    def texts(self, selector: str) -> list[str]:
        code = FIND.replace("return deep(", "return Array.from(deep(").replace(
            "document);", "document)).map((e) => e.textContent);"
        )
        return self.driver.execute_script(code, selector)

    def until(self, condition) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, self.texts("h1, #status")
            time.sleep(0.05)

    def press(self, keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def cursor_to(self, point: int, click: bool = False) -> None:
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        x, y = self.driver.execute_script(POINT, point)
        actions = ActionBuilder(self.driver)
        actions.pointer_action.move_to_location(round(x) - 3, round(y))
        actions.pointer_action.move_to_location(round(x), round(y))
        if click:
            actions.pointer_action.click()
        actions.perform()


def _port_of(server) -> int | None:
    from panel import state

    return next((s.port for s, *_ in state._servers.values()), None)


def test_filter_click_key_and_cursor(page):
    page, marks = page
    page.until(lambda: any("60 of 60 galaxies" in t for t in page.texts("#status")))
    page.until(lambda: "<g0> good" in page.texts("h1"))
    assert len(page.texts(".tabulator-row")) == 10
    assert page.all("img.large")

    page.all("input[placeholder^=snr]")[0].send_keys("magnitude > 21.45\n")
    page.until(lambda: any("54 of 60" in t for t in page.texts("#status")))
    assert marks[0] == ""  # letters that are typed into a field mark nothing
    cells = [c for c in page.all(".tabulator-cell") if c.text == "<g7>"]
    cells[0].click()
    page.until(lambda: "<g7> good" in page.texts("h1"))
    page.press("b")
    page.until(lambda: "<g8> good" in page.texts("h1"))
    page.until(lambda: marks[7] == "bad")
    assert " bad " in marks.path.read_text()
    page.until(lambda: "bad" in page.texts(".tabulator-cell[tabulator-field=mark]"))

    page.cursor_to(20)
    page.until(lambda: "<g25> good" in page.texts("h1"))
    page.press("g")  # marks the current galaxy, which is not the one under the cursor
    page.until(lambda: marks[8] == "good")
    page.cursor_to(30, click=True)
    page.until(lambda: "<g35> good" in page.texts("h1"))
    page.until(lambda: "<g35>" in page.texts(".tabulator-selected .tabulator-cell"))
    page.all("input[placeholder^=snr]")[0].clear()

    def ticks(low: float, high: float) -> list[float]:
        return page.driver.execute_script(TICKS, LOG_TICKS, low, high)

    assert ticks(0.13, 11) == [0.2, 0.5, 1, 2, 5, 10]
    assert ticks(0.5, 2e4) == [1, 10, 100, 1000, 10000]
    assert ticks(3.1, 3.9) == pytest.approx([3.2, 3.4, 3.6, 3.8])
    assert ticks(-1, 5) == []
    severe = [e for e in page.driver.get_log("browser") if e["level"] == "SEVERE"]
    assert not severe
