"""Run by the Python of FATE 2.2.0: do DAGs pass the schemas of its client and of its server, and does every component take its parameters?

python judge_v2.py DAG...       a line of JSON: what is said of each, "accepted" or why not
"""

import copy
import json
import sys
from pathlib import Path

from fate.components.core import load_component
from fate_client.pipeline.entity.dag_structures import DAGSchema as ClientSchema
from fate_flow.entity.spec.dag import DAGSchema as ServerSchema


def judge(dag):
    ClientSchema(**copy.deepcopy(dag))
    ServerSchema(**copy.deepcopy(dag))
    for task in dag["dag"]["tasks"].values():
        component = load_component(task["component_ref"])
        if task.get("stage") != "default":
            (component,) = (
                stage for stage in component.stage_components if stage.name == dag["dag"]["stage"]
            )
        for name, value in task.get("parameters", {}).items():
            component.parameters.mapping[name].apply(value)
    return "accepted"


verdicts = {}
for file in sys.argv[1:]:
    try:
        verdicts[Path(file).name] = judge(json.loads(Path(file).read_text()))
    except Exception as error:
        verdicts[Path(file).name] = f"{type(error).__name__}: {error}"
print(json.dumps(verdicts))
