"""A real browser for the tests: Chromium without a window, and its driver.

Where either is missing a test is skipped and says which; where `HAINA_REQUIRE_BROWSER=1` is set, as in CI, it fails instead.
"""

import contextlib
import importlib.util
import os
import shutil

import pytest


def require_browser():
    """Skip the test where there is no browser to drive, or fail where one is required."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [] if importlib.util.find_spec("selenium") else ["selenium (pip)"]
    if missing:
        reason = f"a browser is needed here, and there is no {', '.join(missing)} (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("HAINA_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@contextlib.contextmanager
def browser(profile):
    """A browser with a fresh profile in a folder; ended with the block. What pages write to the console can be read (`get_log("browser")`)."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        # The user namespaces of Chromium's sandbox are not there in containers; only pages of the test are opened.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-proxy-server",
        "--window-size=1280,900",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(30)
        yield driver
    finally:
        driver.quit()


def as_phone(driver):
    """From now on the window is a phone's: 390 by 844 points, two pixels each."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
