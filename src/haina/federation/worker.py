"""The main module of a worker process (`haina.federation.workers`)."""

import os
import sys

from haina.federation.workers import serve

if __name__ == "__main__":
    # Whatever a learner prints must not get between the messages.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, channel)
