"""Nodes of few words for Flower: each a thread with Flower's own client, which takes the model, and sends its arrays back, scaled.

    flower.py HOST:PORT --nodes 10

Runs in Flower's environment, until its standard input ends.
"""

import argparse
import json
import resource
import sys
import threading
import time

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    iterate_object_tree,
    pull_objects,
    push_objects,
)
from flwr.supernode.fleet_http_connection import http_request_response

#: Seconds between two questions of a node; Flower's own nodes ask every 3 s.
POLL = 0.5

over = threading.Event()
replies = []


def node(address, number):
    with http_request_response(address, True, max_retries=3) as connection:
        _, receive, send, _, _, pull, push, confirm = connection
        while not over.is_set():
            received = receive()
            if received is None:
                time.sleep(POLL)
                continue
            message, tree = received
            run = message.metadata.run_id
            names = list({part.object_id for part in iterate_object_tree(tree)})
            contents = pull_objects(names, lambda name, run=run: pull(run, name))
            confirm(run, message.metadata.message_id)
            whole = inflate_object_from_contents(message.metadata.message_id, contents)
            whole.metadata.__dict__["_message_id"] = whole.object_id
            arrays = next(iter(whole.content.array_records.values())).values()
            scaled = [array.numpy() * np.float32(1 + number * 1e-4) for array in arrays]
            content = RecordDict({"arrays": ArrayRecord(scaled), "m": MetricRecord({"num-examples": 1})})
            reply = Message(content, reply_to=whole)
            with no_object_id_recompute():
                reply.metadata.__dict__["_message_id"] = reply.object_id
                objects, tree = get_all_nested_objects(reply), get_object_tree(reply)
                needed, session = send(reply, tree, 0.1)
                push_objects(
                    objects,
                    lambda name, data, run=run, session=session: push(run, session, name, data),
                    object_ids_to_push=set(needed),
                )
            replies.append(number)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--nodes", type=int, required=True)
    options = parser.parse_args()
    for number in range(options.nodes):
        threading.Thread(target=node, args=(options.address, number), daemon=True).start()
        time.sleep(0.02)
    sys.stdin.read()
    over.set()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"replies": len(replies), "cpu": usage.ru_utime + usage.ru_stime}), flush=True)
    sys.stdout.flush()
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
