import threading

from memory import race

from haina.coordinator.store import AuditRow


def test_lines_are_read_oldest_first_and_from_where_one_was(memory):
    store = memory.open()
    assert store.audit(0, 10) == []
    for number in range(5):
        memory.clock.now += 1
        store.add_audit("ada", "pause", "iris", {"number": number})
    assert store.audit(0, 2)[0] == AuditRow(4, 1_000_004.0, "ada", "pause", "iris", {"number": 3})
    assert [row.id for row in store.audit(0, 10)] == [1, 2, 3, 4, 5]
    assert [row.id for row in store.audit(3, 10)] == [4, 5]


def test_who_follows_the_audit_misses_no_line_while_many_write(memory):
    stores = [memory.open() for _ in range(4)]
    done, seen = threading.Event(), []

    def follow():
        while True:
            last = done.is_set()
            seen.extend(row.id for row in stores[0].audit(seen[-1] if seen else 0, 1000))
            if last:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    race(8, lambda n: [stores[n % 4].add_audit(f"n{n}", "say") for _ in range(10)])
    done.set()
    follower.join(20)
    assert seen == list(range(1, 81))
