"""The everyday calls of the Python client etcd3gw, which speaks JSON, at the address HOST PORT."""

import sys
import threading

import etcd3gw
from etcd3gw.lock import Lock

host, port = sys.argv[1], int(sys.argv[2])
client = etcd3gw.client(host=host, port=port, api_path="/v3/", timeout=10)


def keys():
    assert client.put("keys/a", "one") and client.put("keys/b", "two")
    assert client.get("keys/a") == [b"one"]
    found = [(meta["key"], value) for value, meta in client.get_prefix("keys/")]
    assert found == [(b"keys/a", b"one"), (b"keys/b", b"two")], found
    assert client.create("keys/c", "three") and not client.create("keys/c", "four")
    assert client.replace("keys/a", "one", "five") and client.get("keys/a") == [b"five"]
    assert client.delete("keys/a") and client.get("keys/a") == []
    assert client.delete_prefix("keys/")


def watches():
    events, cancel = client.watch_prefix("watch/")
    threading.Timer(0.2, lambda: client.put("watch/a", "1")).start()
    event = next(events)
    assert event["kv"]["key"] == b"watch/a" and event["kv"]["value"] == b"1", event
    cancel()


def leases():
    lease = client.lease(ttl=30)
    client.put("lease/a", "1", lease=lease)
    assert 0 < lease.ttl() <= 30 and lease.refresh() == 30
    assert lease.keys() == [b"lease/a"], lease.keys()
    assert lease.revoke() and client.get("lease/a") == []


def locks():
    first, second = Lock("job", ttl=20, client=client), Lock("job", ttl=20, client=client)
    assert first.acquire() and not second.acquire()
    assert first.release() and second.acquire() and second.release()


def cluster():
    assert client.status()["version"]
    assert client.members()


for step in (keys, watches, leases, locks, cluster):
    step()
    print("ok", step.__name__)
