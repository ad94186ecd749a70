"""Run by the Python of FATE 1.11.3's client: its own classes make the same job, and its own checks pass the settings.

python judge_v1.py DSL CONF
"""

import json
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

from pipeline.backend.pipeline import PipeLine  # noqa: E402
from pipeline.component import DataIO, DataTransform, Evaluation, HomoLR, Reader  # noqa: E402
from pipeline.interface import Data  # noqa: E402
from pipeline.param.data_transform_param import DataTransformParam  # noqa: E402
from pipeline.param.logistic_regression_param import HomoLogisticParam  # noqa: E402

dsl, conf = (json.loads(Path(path).read_text()) for path in sys.argv[1:])
role, common = conf["role"], conf["component_parameters"]["common"]
tables = conf["component_parameters"]["role"]

made = PipeLine().set_initiator(**conf["initiator"])
made.set_roles(guest=role["guest"][0], host=role["host"], arbiter=role["arbiter"][0])
reader = Reader(name="reader_0")
for name in ("guest", "host"):
    for i, party in enumerate(role[name]):
        instance = reader.get_party_instance(role=name, party_id=party)
        instance.component_param(table=tables[name][str(i)]["reader_0"]["table"])
(transform,) = {"data_transform_0", "dataio_0"} & set(common)
read = (DataTransform if transform == "data_transform_0" else DataIO)(name=transform, **common[transform])
regression = HomoLR(name="homo_lr_0", **common["homo_lr_0"])
made.add_component(reader)
made.add_component(read, data=Data(data=reader.output.data))
made.add_component(regression, data=Data(train_data=read.output.data))
if "evaluation_0" in common:
    made.add_component(
        Evaluation(name="evaluation_0", **common["evaluation_0"]), data=Data(data=regression.output.data)
    )
made.compile()

settings = {key: value for key, value in common["homo_lr_0"].items() if key != "init_param"}
HomoLogisticParam(**settings).check()
if transform == "data_transform_0":
    DataTransformParam(**common[transform]).check()

assert made.get_train_dsl() == dsl, (made.get_train_dsl(), dsl)
assert made.get_train_conf() == conf, (made.get_train_conf(), conf)
print("accepted")
