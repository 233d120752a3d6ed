"""The everyday calls of the Python client aetcd, which is asynchronous, at the address HOST PORT."""

import asyncio
import sys

import aetcd

host, port = sys.argv[1], int(sys.argv[2])


async def keys(client):
    await client.put(b"keys/a", b"one")
    await client.put(b"keys/b", b"two")
    found = await client.get(b"keys/a")
    assert found.value == b"one" and found.version == 1, found
    listed = [(kv.key, kv.value) for kv in await client.get_prefix(b"keys/")]
    assert listed == [(b"keys/a", b"one"), (b"keys/b", b"two")], listed
    assert await client.delete(b"keys/a")
    assert await client.get(b"keys/a") is None
    assert (await client.delete_prefix(b"keys/")).deleted == 1


async def transactions(client):
    await client.put(b"txn/a", b"1")
    compare = [client.transactions.value(b"txn/a") == b"1"]
    success = [client.transactions.put(b"txn/b", b"2")]
    failure = [client.transactions.delete(b"txn/a")]
    done, _ = await client.transaction(compare=compare, success=success, failure=failure)
    assert done and (await client.get(b"txn/b")).value == b"2"
    compare = [client.transactions.value(b"txn/a") == b"9"]
    done, _ = await client.transaction(compare=compare, success=[], failure=failure)
    assert not done and await client.get(b"txn/a") is None


async def watches(client):
    watch = await client.watch_prefix(b"watch/")

    async def change():
        await asyncio.sleep(0.2)
        await client.put(b"watch/a", b"1")
        await client.delete(b"watch/a")

    changing = asyncio.create_task(change())
    kinds = []
    async for event in watch:
        assert event.kv.key == b"watch/a", event
        kinds.append(str(event.kind))
        if len(kinds) == 2:
            await watch.cancel()
            break
    await changing
    assert kinds == ["PUT", "DELETE"], kinds


async def leases(client):
    lease = await client.lease(30)
    await client.put(b"lease/a", b"1", lease=lease)
    assert await lease.keys() == [b"lease/a"]
    await lease.refresh()
    assert 0 < await lease.remaining_ttl() <= 30
    await lease.revoke()
    assert await client.get(b"lease/a") is None


async def locks(client):
    async with client.lock(b"job", ttl=20) as first:
        assert await first.is_acquired()
        assert not await client.lock(b"job", ttl=20).acquire(timeout=1)


async def main():
    async with aetcd.Client(host=host, port=port, timeout=10) as client:
        for step in (keys, transactions, watches, leases, locks):
            await asyncio.wait_for(step(client), 30)
            print("ok", step.__name__)


asyncio.run(main())
