"""The everyday calls of the Python client etcd3, at the address given as HOST PORT."""

import sys
import threading

import etcd3

host, port = sys.argv[1], int(sys.argv[2])
client = etcd3.client(host=host, port=port, timeout=10)


def keys():
    client.put("keys/a", "one")
    value, meta = client.get("keys/a")
    assert value == b"one" and meta.key == b"keys/a" and meta.version == 1, (value, meta)
    client.put("keys/b", "two")
    found = [(meta.key, value) for value, meta in client.get_prefix("keys/")]
    assert found == [(b"keys/a", b"one"), (b"keys/b", b"two")], found
    descending = [meta.key for _, meta in client.get_prefix("keys/", sort_order="descend")]
    assert descending == [b"keys/b", b"keys/a"], descending
    assert client.replace("keys/a", "one", "three") and not client.replace("keys/a", "one", "x")
    assert client.delete("keys/a") and not client.delete("keys/a")
    assert client.delete_prefix("keys/").deleted == 1


def transactions():
    client.put("txn/a", "1")
    compare = [client.transactions.value("txn/a") == "1", client.transactions.version("txn/b") == 0]
    change = [client.transactions.put("txn/b", "2"), client.transactions.get("txn/a")]
    done, answers = client.transaction(compare=compare, success=change, failure=[])
    assert done and answers[1][0][0] == b"1", (done, answers)
    done, answers = client.transaction(
        compare=compare, success=[], failure=[client.transactions.delete("txn/a")]
    )
    assert not done and client.get("txn/a") == (None, None), answers


def watches():
    events, cancel = client.watch_prefix("watch/")
    threading.Timer(0.2, lambda: (client.put("watch/a", "1"), client.delete("watch/a"))).start()
    put, delete = next(events), next(events)
    assert isinstance(put, etcd3.events.PutEvent) and put.value == b"1", put
    assert isinstance(delete, etcd3.events.DeleteEvent) and delete.key == b"watch/a", delete
    cancel()


def leases():
    lease = client.lease(30)
    client.put("lease/a", "1", lease=lease)
    assert lease.granted_ttl == 30 and lease.keys == [b"lease/a"], lease.keys
    assert lease.refresh()[0].TTL == 30
    lease.revoke()
    assert client.get("lease/a")[0] is None


def locks():
    with client.lock("job", ttl=20) as first:
        assert first.is_acquired()
        assert not client.lock("job", ttl=20).acquire(timeout=1)
    second = client.lock("job", ttl=20)
    assert second.acquire(timeout=5) and second.release()


def cluster():
    status = client.status()
    assert status.version and status.leader is not None, status
    assert [member.name for member in client.members] != []
    assert len(list(client.list_alarms())) == 0
    assert client.hash() >= 0


for step in (keys, transactions, watches, leases, locks, cluster):
    step()
    print("ok", step.__name__)
