"""What the Python side of secure sums, policies and noise says, written down for the tests of the R package.

    python tests/support/secagg_vectors.py        writes r/haina/tests/testthat/vectors/secagg.json

Everything comes from fixed keys, so the file is always the same; `tests/r/test_secagg.py` holds it against this programme.
"""

import json
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haina.errors import HainaError
from haina.federation.federation import Federation
from haina.federation.sealed import fewest
from haina.privacy.mechanisms import MECHANISMS
from haina.privacy.secagg import (
    Advert,
    Aggregator,
    Answer,
    Consent,
    Inbox,
    Member,
    SecAggError,
    Terms,
    pack,
    plan,
    unpack,
)
from haina.privacy.secagg.plan import safe_threshold, together
from haina.privacy.stream import Stream
from haina.privacy.zcdp import epsilon_of, rho_of
from haina.strategy.presets import PRESETS
from haina.strategy.weigh import Samples
from haina.wire.messages import Task

HERE = Path(__file__).parents[2] / "r" / "haina" / "tests" / "testthat" / "vectors" / "secagg.json"
TASK = sha256(b"task").hexdigest()

FILE = """\
name = "vectors"
seed = 7
[model]
learner = "{learner}"
{model}
[data]
{data}
[train]
rounds = {rounds}
[serve]
nodes = {nodes}
{serve}
{more}
[privacy]
{privacy}
"""
NET = {"learner": "jax", "model": 'kind = "logistic"', "data": 'shape = [6]\nclasses = ["no", "yes"]'}
GLM = {
    "learner": "glm",
    "model": 'family = "binomial"',
    "data": 'target = "y"\nfeatures = ["a", "b"]\nclasses = ["no", "yes"]\ntest = 0',
}
SECURE = "secure_aggregation = { dropout = 0.34 }"
#: Federation files, and clients of a group, that cover the ways of a policy.
POLICIES = {
    "sums of updates": (NET, {"privacy": "secure_aggregation = true"}, 6),
    "exact statistics": (GLM, {"privacy": "secure_aggregation = true"}, 6),
    "groups": (NET, {"privacy": "secure_aggregation = { group = 11, range = 2.5 }", "nodes": 40, "serve": "quorum = 30"}, 11),
    "equal weights": (NET, {"privacy": f"{SECURE}", "more": '[strategy]\npreset = "median"\nweigh = ["uniform"]\ncombine = "mean"'}, 5),
    "distributed noise from a budget": (
        NET,
        {"privacy": f'{SECURE}\nnoise = "distributed"\nclip = 1.0\nbudget = {{ epsilon = 8.0, delta = 1e-3 }}\nmax_examples = 200'},
        6,
    ),
    "distributed noise, adaptive": (
        NET,
        {
            "privacy": f'{SECURE}\nnoise = "distributed"\nmechanism = {{discrete_gaussian = 0.8}}\n'
            "clip = {adaptive = {quantile = 0.5, start = 1.0}}"
        },
        8,
    ),
    "central noise": (NET, {"privacy": f'{SECURE}\nnoise = "central"\nmechanism = {{gaussian = {{noise_multiplier = 1.5}}}}\nclip = 2.0'}, 6),
    "central Laplace noise": (NET, {"privacy": f'{SECURE}\nnoise = "central"\nmechanism = {{laplace = 3.0}}\nclip = 0.5'}, 6),
    "local noise": (NET, {"privacy": 'noise = "local"\nmechanism = "laplace"\nclip = 1.0\nbudget = {epsilon = 5.0}'}, 0),
    "local Gaussian noise": (NET, {"privacy": 'noise = "local"\nclip = 1.0\nbudget = {epsilon = 5.0, delta = 1e-5}'}, 0),
    "a quorum of one node": (NET, {"privacy": "secure_aggregation = true", "nodes": 5, "serve": "quorum = 1"}, 5),
    "a quorum of a share": (NET, {"privacy": "secure_aggregation = true", "nodes": 10, "serve": "quorum = 0.75"}, 10),
}  # fmt: skip


def key_of(*words):
    return sha256("/".join(map(str, words)).encode()).digest()


def circle(title, names, length, word, gone, shown):
    """One sum: what each message is; of the members in `shown`, everything that they are told and answer."""
    terms = Terms(federation="vectors", round=5, task=TASK, length=length, word=word, corrupt=0.1)
    chosen = plan(len(names), dropout=0.34 if len(names) < 17 else 0.1)
    setting = terms.setting(2, chosen.degree, chosen.threshold, chosen.least)
    identities = {name: key_of("identity", title, name) for name in names}
    entropy = {name: key_of("entropy", title, name) for name in names}
    members = {
        name: Member(
            name, Ed25519PrivateKey.from_private_bytes(identities[name]), terms, Stream(entropy[name]).bytes
        )
        for name in names
    }
    adverts = {name: member.advertise() for name, member in members.items()}
    middle = Aggregator(setting, list(adverts.values()))
    shared = {
        name: member.share(setting, list(adverts.values()), lambda name: None)
        for name, member in members.items()
    }
    uploaders = tuple(sorted(name for name in names if name not in gone))
    words, masked = {}, {}
    for name in uploaders:
        words[name] = np.frombuffer(
            Stream(key_of("words", title, name)).bytes(length * word // 8), f"<u{word // 8}"
        )
        masked[name] = members[name].upload(middle.inbox(shared, name), words[name].copy())
    consents = {name: members[name].consent(uploaders) for name in uploaders}
    told = {name: middle.consents(consents, name) for name in uploaders}
    answers = {name: members[name].unmask(uploaders, told[name]).to_bytes() for name in uploaders}
    total = np.sum(list(masked.values()), axis=0, dtype=f"u{word // 8}")
    middle.open(total, names, uploaders, {name: Answer.from_bytes(data) for name, data in answers.items()})
    assert (total == np.sum(list(words.values()), axis=0, dtype=total.dtype)).all()
    return {
        "title": title,
        "terms": {
            "federation": "vectors",
            "round": 5,
            "task": TASK,
            "length": length,
            "word": word,
            "corrupt": 0.1,
        },
        "setting": {
            "group": 2,
            "degree": setting.degree,
            "threshold": setting.threshold,
            "least": setting.least,
        },
        "terms_context": terms.context().hex(),
        "setting_context": setting.context().hex(),
        "adverts": pack({name: advert.to_bytes() for name, advert in adverts.items()}).hex(),
        "uploaders": uploaders,
        "ring": middle._cohort.ring,
        "members": [
            {
                "name": name,
                "identity": identities[name].hex(),
                "entropy": entropy[name].hex(),
                "neighbours": middle.neighbours[name],
                "advert": adverts[name].to_bytes().hex(),
                "shares": pack(shared[name]).hex(),
                "inbox": middle.inbox(shared, name).to_bytes().hex(),
                "words": words[name].tobytes().hex(),
                "masked": masked[name].tobytes().hex(),
                "consent": consents[name].hex(),
                "consents": pack(told[name]).hex(),
                "answer": answers[name].hex(),
            }
            for name in shown
        ],
    }


def accepted(kind, data):
    """Whether bytes are a message."""
    read = {
        "advert": Advert.from_bytes,
        "inbox": Inbox.from_bytes,
        "answer": Answer.from_bytes,
        "table": unpack,
        "consent": Consent.from_bytes,
    }
    try:
        read[kind](data)
    except SecAggError:
        return False
    return True


def damaged(example):
    """Messages with something wrong, or something else, in them."""
    out, rng = [], np.random.default_rng(3)
    member = example["members"][0]
    for kind, field in (
        ("advert", "advert"),
        ("inbox", "inbox"),
        ("answer", "answer"),
        ("table", "consents"),
    ):
        data = bytes.fromhex(member[field])
        cases = [data[: int(rng.integers(len(data)))] for _ in range(4)] + [data + b"\0"]
        for place in [0, 1, 2, 3, 4, 5, 6, 7, *rng.integers(len(data), size=4).tolist()]:
            changed = bytearray(data)
            changed[place] ^= 1 << int(rng.integers(8))
            cases.append(bytes(changed))
        out += [{"kind": kind, "data": case.hex(), "good": accepted(kind, case)} for case in cases]
    return out


def tasks():
    some = {
        "federation": "trial",
        "round": 3,
        "version": 2,
        "model": "ab" * 32,
        "bytes": 1234,
        "learning_rate": 0.1,
    }
    full = {
        **some, "proximal": 1e-5, "epochs": 2, "steps": 7, "batch_size": 16, "momentum": 0.9, "weight_decay": 1e-4, "clip_norm": 5.0,
        "measure": ("loss_before", "accuracy"), "control": "cd" * 32, "seed": (1 << 63) - 1, "codec": "masked", "seconds": 12.5, "clip_update": 2.0,
        "noise": 0.25, "limit": 1.0, "example_clip": 0.5, "example_noise": 1.1,
    }  # fmt: skip
    return [
        {"json": Task(**fields).model_dump_json(), "agreed": Task(**fields).agreed}
        for fields in (some, full, {**some, "limit": 3.0, "seed": 12345678901234})
    ]


def plans():
    out = []
    for members in (*range(2, 33), 48, 75, 100, 131, 200):
        for corrupt, dropout in ((0.1, 0.1), (0.0, 0.34), (0.33, 0.1), (0.4, 0.3)):
            try:
                chosen = plan(members, corrupt=corrupt, dropout=dropout)
                numbers = [chosen.degree, chosen.threshold, chosen.least]
            except HainaError:
                numbers = None
            out.append({"members": members, "corrupt": corrupt, "dropout": dropout, "plan": numbers})
    rare = [
        [n, k, c, safe_threshold(n, k, c), together(n, k, c)]
        for n, k in ((20, 8), (100, 22), (60, 16))
        for c in (0.05, 0.1, 0.3)
    ]
    return {"plans": out, "rare": rare}


def policies():
    out = []
    for title, (learner, said, clients) in POLICIES.items():
        text = FILE.format(**{"rounds": 3, "nodes": 6, "serve": "", "more": "", **learner, **said})
        federation = Federation.of(text, "vectors.toml")
        policy = federation.privacy
        assert policy is not None
        d = 40
        brief = {
            "file": federation.settings.model_dump(mode="json"),
            "payload": str(federation.strategy.combine.payload),
        }
        mechanism = policy.mechanism and [
            next(name for name, kind in MECHANISMS.items() if kind is type(policy.mechanism)),
            *vars(policy.mechanism).values(),
        ]
        vector = np.random.default_rng(1).normal(size=d) * 0.1
        limit = None if mechanism is None else 1.0 if policy.adaptive else federation.settings.privacy.clip
        case = {
            "title": title,
            "brief": json.dumps(brief),
            "mechanism": mechanism,
            "most": policy.most,
            "adaptive": policy.adaptive,
            "vector": vector.tobytes().hex(),
            "limit": limit,
            "clients": clients,
            "words": policy.words,
            "key": key_of("policy", title).hex(),
        }
        stream = Stream(key_of("policy", title))
        if policy.hidden is None:
            case["covered"] = policy.cover(vector, limit, stream).tobytes().hex()
        else:
            case |= {
                "size": policy.size(d),
                "word": policy.word,
                "least": policy.least(clients),
                "fewest": fewest(federation),
            }
            if not policy.summed:
                terms = policy.terms(d, limit, clients)
                case |= {
                    "step": terms.grid.step,
                    "most_units": terms.grid.most,
                    "unit": terms.unit,
                    "sensitivity": terms.sensitivity,
                    "parties": terms.parties,
                }
            case["sealed"] = policy.seal(vector, 120, limit, clients, stream).tobytes().hex()
        out.append(case)
    return out


def noises():
    out = []
    for kind, strength, sensitivity in (
        ("discrete_gaussian", 1.0, 3.7), ("gaussian", 0.5, 2.0), ("gaussian", 1.25, 1e6), ("discrete_gaussian", 2.0, 1e9),
        ("discrete_laplace", 0.5, 1.0), ("laplace", 2.0, 3.0), ("laplace", 0.1, 1e7), ("discrete_laplace", 1.0, 2e4),
    ):  # fmt: skip
        mechanism, key = MECHANISMS[kind](strength), key_of("noise", kind, strength, sensitivity)
        draws = mechanism.noise(200, sensitivity, Stream(key))
        out.append(
            {
                "kind": kind, "strength": strength, "sensitivity": sensitivity, "key": key.hex(), "draws": draws.tolist(),
                "tail": mechanism.tail(sensitivity),
            }
        )  # fmt: skip
    return out


def vectors():
    """All of it."""
    small = circle(
        "six, one gone", [f"site-{k}" for k in (3, 1, 2, 10, 5, 4)], 37, 32, {"site-10"}, ["site-1", "site-5"]
    )
    return {
        "circles": [
            small,
            circle("four, words of 64", ["b", "a", "d", "c"], 9, 64, set(), ["a", "d"]),
            circle("a ring of 24", [f"n{k}" for k in range(24)], 5, 32, {"n3"}, ["n0", "n17"]),
        ],
        "damaged": damaged(small),
        "tasks": tasks(),
        "task_fields": sorted(Task.model_fields.keys() - {"codec", "seconds"}),
        **plans(),
        "policies": policies(),
        "noises": noises(),
        "zcdp": [
            [e, d, rho_of(e, d), epsilon_of(e / 10, d)]
            for e in (0.01, 1.0, 8.0, 50.0)
            for d in (1e-9, 1e-5, 0.01)
        ],
        "weighs": {
            name: any(isinstance(f, Samples) for f in preset().weigh.factors)
            for name, preset in PRESETS.items()
        },
        "lonely": sorted(name for name, preset in PRESETS.items() if preset().trust is not None),
    }


def text():
    """The file."""
    return json.dumps(vectors(), indent=0, allow_nan=False) + "\n"


if __name__ == "__main__":
    HERE.write_text(text())
    sys.stdout.write(f"{HERE.name}: {HERE.stat().st_size} bytes\n")
