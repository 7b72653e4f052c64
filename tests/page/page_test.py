"""The page at / in Debian's chromium, as a person uses it. Needs packages-page.txt; `make test-page` installs it."""
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import STORIES, wait_for_engines  # noqa: E402 pylint: disable=wrong-import-position
from serving import Operator, Server  # noqa: E402 pylint: disable=wrong-import-position

LONG = 200  # tokens: some seconds of a stream


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The story teller's tokenizer before a larger model of random weights, slow enough to be watched in the scalar kernels."""
    folder = tmp_path_factory.mktemp("page") / "stories"
    shutil.copytree(STORIES, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8, head_dim=32)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    return Operator(tmp_path_factory.mktemp("operator") / "ctl")


@pytest.fixture(scope="module")
def server(model, operator):
    served = Server(model, "-dp", "2", "--control-socket", operator.path, "--load-format", "dummy", "--cpu-isa", "scalar", "--threads", "1", "--kv-cache-memory", "64MiB",
                    "--served-model-name", "stories", "--enable-prompt-tokens-details")
    yield served
    served.close()


@pytest.fixture
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    complaints = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    driver.quit()
    assert not complaints


def resize(browser, width, height=900):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})


def prefer(browser, scheme):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})


def wait_until(condition, within_s=30, what=""):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what or "it did not come to pass"
        time.sleep(0.02)


def element(browser, name):
    return browser.find_element(By.ID, name)


def open_page(browser, server, width=1440):
    resize(browser, width)
    browser.get(f"http://{server.host}:{server.port}/")
    wait_until(lambda: element(browser, "model").text.startswith("stories"), what="the page does not know the model")


def set_value(browser, name, value):
    browser.execute_script("document.getElementById(arguments[0]).value = arguments[1]", name, value)


def begin(browser, prompt="Once upon a time", **settings):
    """Asks for a greedy completion."""
    browser.execute_script("document.getElementById('kind-completion').click()")
    for name, value in {"temperature": "0", "max_tokens": str(LONG), **settings}.items():
        set_value(browser, name, value)
    element(browser, "prompt").send_keys(prompt + Keys.ENTER)
    wait_until(lambda: len(answer(browser)) > 20 or not is_running(browser), what="no answer comes")


def answer(browser):
    return browser.execute_script("const all = document.querySelectorAll('.message.assistant'); const last = all[all.length - 1];"
                                  "return last ? last.textContent.replace('Answer: ', '') : ''")


def is_running(browser):
    return browser.execute_script("return document.querySelector('.message.running') !== null")


def finish(browser):
    wait_until(lambda: not is_running(browser), 120, "the answer does not end")
    return answer(browser)


def test_an_answer_streams_and_is_the_servers(browser, server):
    open_page(browser, server)
    begin(browser)
    assert is_running(browser)
    text = finish(browser)
    body = {"model": "stories", "prompt": "Once upon a time", "temperature": 0, "max_tokens": LONG}
    assert text == server.post("/v1/completions", body)["choices"][0]["text"]
    status = element(browser, "status").text
    assert "first token after" in status and "tokens/s" in status


def test_stop_ends_the_request_in_the_engine_too(browser, server):
    open_page(browser, server)
    begin(browser)
    element(browser, "stop").click()
    wait_until(lambda: not is_running(browser))
    assert element(browser, "status").text == "stopped by you"
    running = lambda: sum(float(line.split()[-1]) for line in server.request("GET", "/metrics")[2].decode().splitlines() if line.startswith("vllm:num_requests_running{"))
    wait_until(lambda: running() == 0, 5)


def test_a_killed_replica_shows_and_the_text_goes_on(browser, server):
    open_page(browser, server)
    wait_until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#rank option")) == 3)
    begin(browser, rank="0")
    calm = finish(browser)
    begin(browser, rank="0")
    os.kill(wait_for_engines(server.process, 2)[0], signal.SIGKILL)
    assert finish(browser) == calm
    events = lambda: element(browser, "events").text
    wait_until(lambda: "Replica 0 died" in events() and "goes on at another replica" in events(), 10, "no event tells of it")
    wait_until(lambda: "Replica 0 is ready" in events(), 30, "the replica does not come back")
    assert element(browser, "readiness").text == "2 of 2 ready"


def test_a_drained_replica_shows_and_the_text_goes_on(browser, server, operator):
    open_page(browser, server)
    wait_until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#rank option")) == 3)
    begin(browser, rank="0")
    calm = finish(browser)
    begin(browser, rank="0")
    operator.ctl("drain", "0")
    assert finish(browser) == calm
    state = lambda: browser.find_element(By.CSS_SELECTOR, "[data-replica='0'] .pill").text
    wait_until(lambda: state() == "drained", 10, "the card does not say so")
    assert "Replica 0 is drained" in element(browser, "events").text and element(browser, "readiness").text == "1 of 2 ready"
    assert "the replica was drained here" in element(browser, "transcript").text
    operator.ctl("resume", "0")
    wait_until(lambda: state() == "ready", 10, "the replica does not come back")
    assert "Replica 0 is ready" in element(browser, "events").text


def test_probabilities_are_shown_with_each_token(browser, server):
    open_page(browser, server)
    browser.execute_script("document.getElementById('logprobs').checked = true")
    begin(browser, max_tokens="20")
    finish(browser)
    titles = [mark.get_attribute("title") for mark in browser.find_elements(By.CSS_SELECTOR, ".message.assistant mark")]
    assert len(titles) == 20 and all("%" in title for title in titles)


@pytest.mark.parametrize("width", [360, 1440])
def test_it_fits(browser, server, width):
    open_page(browser, server, width)
    browser.execute_script("document.getElementById('settings').open = true")
    begin(browser, max_tokens="60")
    finish(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    outside = browser.execute_script("""return [...document.querySelectorAll('button, input:not([type=radio]), select, textarea, summary, h1, h2, .replica')]
      .filter(e => { const r = e.getBoundingClientRect(); return r.width && (r.left < 0 || r.right > arguments[0]); }).map(e => e.id || e.textContent)""", width)
    assert outside == []


CONTRASTS = """
const luminance = ([r, g, b]) => [r, g, b].map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parts = (color) => color.match(/[\\d.]+/g).map(Number);
const backOf = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const hasText = (e) => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
return [...document.querySelectorAll('body *')].filter(e => hasText(e) && e.getClientRects().length && !e.disabled && !e.closest('.hidden, script')).map(e => {
  const a = luminance(parts(getComputedStyle(e).color)), b = luminance(backOf(e));
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + ' ' + (e.id || e.className) + ' ' + e.textContent.slice(0, 20)];
}).filter(([ratio]) => ratio < 4.5);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(browser, server, scheme):
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    prefer(browser, scheme)
    open_page(browser, server)
    browser.execute_script("document.getElementById('settings').open = true")
    begin(browser, max_tokens="20")
    finish(browser)
    assert browser.execute_script(CONTRASTS) == []
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in back[4:-1].split(",")) > 384) == (scheme == "light")
    element(browser, "theme").click()
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != back
    assert browser.execute_script(CONTRASTS) == []


def test_everything_has_a_name_and_the_keyboard_reaches_it(browser, server):
    open_page(browser, server)
    nameless = browser.execute_script("""return [...document.querySelectorAll('input, textarea, select, button, meter, [role=log], [role=img], ol')]
      .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || (e.tagName === 'BUTTON' && e.textContent.trim()))).map(e => e.outerHTML)""")
    assert nameless == []
    assert browser.execute_script("return [...document.images].every(i => i.hasAttribute('alt')) && document.documentElement.lang === 'en'")
    reached = []
    body = browser.find_element(By.TAG_NAME, "body")
    for _ in range(12):
        body.send_keys(Keys.TAB)
        reached.append(browser.execute_script("return document.activeElement.id || document.activeElement.className || document.activeElement.tagName"))
    assert reached[0] == "skip" and reached.index("theme") < reached.index("clear") < reached.index("prompt") < reached.index("send")
    element(browser, "prompt").send_keys("A dog" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "and a cat")
    assert element(browser, "prompt").get_attribute("value") == "A dog\nand a cat"
    set_value(browser, "prompt", "")
    begin(browser)
    body.send_keys(Keys.ESCAPE)
    wait_until(lambda: element(browser, "status").text == "stopped by you")


def test_it_is_small_and_asks_nobody_else(browser, server):
    open_page(browser, server)
    begin(browser, max_tokens="20")
    finish(browser)
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert asked and all(name.startswith(f"http://{server.host}:{server.port}/") for name in asked)
    total = 0
    for path in ("/", "/page.css", "/page.js", "/page.svg"):
        status, headers, content = server.request("GET", path)
        policy = headers["content-security-policy"]
        assert status == 200 and "default-src 'none'" in policy and "unsafe" not in policy
        total += len(content)
    assert total <= 64 * 1024


def test_a_key_is_asked_for(browser, tmp_path):
    (tmp_path / "keys").write_text("secret\n")
    server = Server(STORIES, "--threads", "1", "--kv-cache-memory", "16MiB", "--served-model-name", "stories", "--api-key-file", tmp_path / "keys")
    try:
        resize(browser, 1440)
        browser.get(f"http://{server.host}:{server.port}/")
        wait_until(lambda: "API key" in element(browser, "fleet-note").text)
        set_value(browser, "key", "secret")
        wait_until(lambda: element(browser, "model").text.startswith("stories"))
        begin(browser, max_tokens="20")
        assert finish(browser)
        browser.get_log("browser")  # chromium notes each 401
    finally:
        server.close()
