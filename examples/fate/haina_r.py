"""The Haina task in a FATE 2.x job: a component that hands a site's rows to the site's own R service and keeps the fit that comes back.

It runs where FATE runs, in FATE's Python, and imports nothing of Haina. Install it there, at every site, and start FATE Flow again:

    pip install --no-deps examples/fate

A job says `component_ref: haina_r` with the parameters `r_script_url` and `timeout`; `haina fate export --r-script-url URL` writes that. The
service is one as for `learner = "rservice"` (`examples/rservice`), and is asked as it is there: a frame of float64, or JSON with `format: json`. It
is given coefficients of zero and the rows, and answers coefficients, the intercept first. They become the task's output model, in HomoLR's layout,
at each site for itself: nothing goes to other sites.

The trap: the URL comes with the job, from whoever submitted it, and rows go to it. So a site calls its own machine only, unless its owner lists
services in the environment of FATE Flow (`HAINA_R_SERVICES="https://r.example.org:8443"`, with spaces between several); then those, and no others.
Redirects are not followed, proxies not used.
"""

import http.client
import ipaddress
import json
import math
import os
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import numpy as np
from fate.arch import Context
from fate.components.core import GUEST, HOST, Role, cpn, params

#: Bytes of an answer; coefficients of a hundred thousand columns are less.
LONGEST = 4 << 20


class RServiceError(RuntimeError):
    """The R service must not be called, or did not answer as it should; FATE keeps the words in the task's log."""


@cpn.component(roles=[GUEST, HOST], provider="haina", version="0.1.0", description="fit a site's rows in R")
def haina_r(
    ctx: Context,
    role: Role,
    input_data: cpn.dataframe_input(roles=[GUEST, HOST]),
    r_script_url: cpn.parameter(type=str, desc="the site's R service", optional=False),
    timeout: cpn.parameter(
        type=params.confloat(gt=0.0, le=86400.0), default=300.0, desc="seconds that R may take"
    ),
    format: cpn.parameter(
        type=params.string_choice(["binary", "json"]),
        default="binary",
        desc="of what the service is asked in",
    ),
    output_model: cpn.json_model_output(roles=[GUEST, HOST]),
):
    """Fit the rows of this site."""
    frame = input_data.read()
    table = frame.as_pd_df()
    columns = list(frame.schema.columns)
    x, y = table[columns].to_numpy(np.float64), table[frame.schema.label_name].to_numpy(np.float64)
    coefficients = fit(r_script_url, columns, x, y, float(timeout), format)
    state = {"models.0.weight": [coefficients[1:]], "models.0.bias": coefficients[:1]}
    network = {"feature_num": len(columns), "label_num": 1, "state_dict": state}
    meta = {"r_script_url": r_script_url, "n": len(y)}
    output_model.write({"meta": meta, "param": {"model": network}}, metadata={})


def fit(url, columns, x, y, timeout, format):
    """The service's coefficients for some rows `x` [N, p], `y` [N]: a list of 1 + p, the intercept first."""
    if format == "json":
        names = [*columns, "y"]
        # FATE's Python may be 3.8, whose zip knows no `strict`.
        rows = [dict(zip(names, row)) for row in np.column_stack([x, y]).tolist()]  # noqa: B905
        task = {"data": rows, "params": [0.0] * (1 + len(columns)), "config": {}}
        answer = call(url, json.dumps(task, allow_nan=False).encode(), "application/json", timeout)
        numbers = from_json(url, answer)
    else:
        answer = call(url, in_binary(columns, x, y), "application/octet-stream", timeout)
        numbers = from_binary(url, answer)[: 1 + len(columns)]
    if len(numbers) != 1 + len(columns):
        raise RServiceError(
            f"{url} answered {len(numbers)} coefficients, and {1 + len(columns)} were to come"
        )
    if not all(map(math.isfinite, numbers)):
        raise RServiceError(f"{url} answered with a coefficient that is no finite number")
    return numbers


def in_binary(columns, x, y):
    """int32 bytes of header, int32 count of float64, the header as JSON, then params, x column by column, y."""
    names = ["(Intercept)", *columns]
    said = {
        "rows": len(x),
        "columns": len(columns),
        "params": len(names),
        "names": names,
        "features": columns,
    }
    header = json.dumps({**said, "classes": ["0", "1"], "config": {}}).encode()
    numbers = np.concatenate([np.zeros(len(names)), x.ravel("F"), y]).astype("<f8")
    return struct.pack("<ii", len(header), len(numbers)) + header + numbers.tobytes()


def from_binary(url, answer):
    """The float64 of an answer: coefficients, n, metrics."""
    words, count = struct.unpack_from("<ii", answer) if len(answer) >= 8 else (-1, -1)
    if words < 0 or count < 0 or len(answer) != 8 + words + 8 * count:
        raise RServiceError(f"{url} answered what is no message. Does it speak JSON (format: json)?")
    return np.frombuffer(answer, "<f8", count, 8 + words).tolist()


def from_json(url, answer):
    """The coefficients of an answer."""
    try:
        document = json.loads(answer)
        numbers = document.get("coef", document.get("params"))
        return [float(number) for number in numbers]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise RServiceError(f"{url} answered without coef, a list of numbers") from None


def call(url, body, kind, timeout):
    """The answer to one POST; all of it together takes at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    scheme, host, port = origin(url)
    parts, place, over = urlsplit(url), allowed(url), threading.Event()
    connection = http.client.HTTPConnection(host, port)
    watch = None
    try:
        # To the very address that was looked at: a name may mean another machine a moment later.
        sock = socket.create_connection((place, port), timeout)
        # Each wait for a byte has a limit of its own, so one clock for all of them closes the connection.
        watch = threading.Timer(max(0.0, deadline - time.monotonic()), shut, (sock, over))
        watch.daemon = True
        watch.start()
        if scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection.sock = sock
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": kind})
        response = connection.getresponse()
        answer = response.read(LONGEST + 1)
    except (OSError, http.client.HTTPException) as error:
        if over.is_set() or isinstance(error, TimeoutError):
            raise RServiceError(f"{url} did not answer within {timeout:g} seconds") from None
        raise RServiceError(
            f"{url} cannot be reached ({type(error).__name__}). Is the R service running?"
        ) from None
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()
    if over.is_set():
        raise RServiceError(f"{url} did not answer within {timeout:g} seconds")
    if response.status != 200:
        raise RServiceError(f"{url} answered with HTTP status {response.status}")
    if len(answer) > LONGEST:
        raise RServiceError(f"{url} answered with more than {LONGEST} bytes")
    return answer


def origin(url):
    """Scheme, host and port of an address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if not port or not parts.hostname or "@" in parts.netloc:
        raise RServiceError(
            f"r_script_url is {url!r}, and no address such as http://localhost:8000/run_logistic_regression"
        )
    return parts.scheme, parts.hostname, port


def allowed(url):
    """An address of the service's machine, if the owner of this one allows it."""
    listed = os.environ.get("HAINA_R_SERVICES", "").split()
    refused = RServiceError(
        f"r_script_url names {url}, and this site allows "
        + (" or ".join(listed) if listed else "services on its own machine")
        + ". If its owner trusts that service with the rows: start FATE Flow with HAINA_R_SERVICES set to it"
    )
    if listed and origin(url) not in map(origin, listed):
        raise refused
    try:
        found = socket.getaddrinfo(*origin(url)[1:], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise refused from None
    # A service listens on IPv4 more often than not.
    places = sorted((entry[4][0] for entry in found), key=lambda place: ":" in place)
    if not listed and not all(ipaddress.ip_address(place).is_loopback for place in places):
        raise refused
    return places[0]


def shut(sock, over):
    """End what takes too long."""
    over.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
