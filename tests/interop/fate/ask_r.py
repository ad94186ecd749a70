"""Run by the Python of FATE 2.2.0: the Haina task's component asks R services, and says what it got or why not.

python ask_r.py FOLDER URL...       FOLDER: of haina_r.py; a line of JSON: what came of each URL
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

import numpy as np
from haina_r import RServiceError, fit

X, Y = np.array([[0.1, 2.0], [0.3, -1.0]]), np.array([1.0, 0.0])
told = []
for url in sys.argv[2:]:
    try:
        told.append(fit(url, ["x0", "x1"], X, Y, 0.5, "json" if "json" in url else "binary"))
    except RServiceError as error:
        told.append(str(error))
print(json.dumps(told))
