"""Run by the Python of FATE 2.2.0: its HomoLR takes a model as it would one to go on from, and predicts.

python read_model.py MODEL ROWS       ROWS: JSON, a list of rows; a line of JSON: the probabilities
"""

import json
import sys
from pathlib import Path

import torch
from fate.ml.glm.homo.lr.client import HomoLRClient

client = HomoLRClient()
client.from_model(json.loads(Path(sys.argv[1]).read_text())["output_model"])
client.model.eval()
rows = torch.tensor(json.loads(Path(sys.argv[2]).read_text()), dtype=torch.float32)
print(json.dumps(client.model(rows)["pred"].ravel().tolist()))
