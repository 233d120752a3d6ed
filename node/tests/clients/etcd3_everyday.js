// The everyday calls of the Node client etcd3, at the address given as HOST PORT. Users and roles come
// last: authentication is on at the end.
"use strict";

const assert = require("node:assert");
const { Etcd3 } = require("etcd3");

const hosts = `${process.argv[2]}:${process.argv[3]}`;
const client = new Etcd3({ hosts });

async function keys() {
  await client.put("keys/a").value("one");
  await client.put("keys/b").value("two");
  assert.equal(await client.get("keys/a").string(), "one");
  assert.deepEqual(await client.getAll().prefix("keys/").strings(), {
    "keys/a": "one",
    "keys/b": "two",
  });
  assert.equal(await client.getAll().prefix("keys/").count(), 2);
  const last = await client.getAll().prefix("keys/").sort("Key", "Descend").limit(1).keys();
  assert.deepEqual(last, ["keys/b"]);
  assert.equal((await client.delete().key("keys/a")).deleted, "1");
  assert.equal((await client.delete().prefix("keys/")).deleted, "1");
  assert.equal(await client.get("keys/a").string(), null);
}

async function transactions() {
  const attempt = () =>
    client
      .if("txn/a", "Create", "==", 0)
      .then(client.put("txn/a").value("1"))
      .else(client.get("txn/a"))
      .commit();
  assert.equal((await attempt()).succeeded, true);
  const second = await attempt();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), "1");
  await client.stm().transact(async (tx) => {
    const value = await tx.get("txn/a").string();
    await tx.put("txn/a").value(String(Number(value) + 1));
  });
  assert.equal(await client.get("txn/a").string(), "2");
}

async function watches() {
  const watcher = await client.watch().prefix("watch/").create();
  const seen = [];
  const done = new Promise((resolve) => {
    watcher.on("put", (kv) => seen.push(`put ${kv.key} ${kv.value}`));
    watcher.on("delete", (kv) => {
      seen.push(`delete ${kv.key}`);
      resolve();
    });
  });
  await client.put("watch/a").value("1");
  await client.delete().key("watch/a");
  await done;
  assert.deepEqual(seen, ["put watch/a 1", "delete watch/a"]);
  await watcher.cancel();
}

async function leases() {
  const lease = client.lease(30);
  await lease.put("lease/a").value("1");
  await lease.keepaliveOnce();
  assert.equal(await client.get("lease/a").string(), "1");
  await lease.revoke();
  assert.equal(await client.get("lease/a").string(), null);
}

async function locks() {
  const lock = client.lock("job");
  await lock.acquire();
  await assert.rejects(client.lock("job").acquire());
  await lock.release();
  await client.lock("job").do(async () => {});
}

async function elections() {
  const election = client.election("boss", 10);
  const campaign = election.campaign("first");
  await new Promise((resolve, reject) => campaign.on("elected", resolve).on("error", reject));
  assert.equal(await election.leader(), "first");
  await campaign.resign();
}

async function users() {
  const role = client.role("reader");
  await role.create();
  await role.grant({ permission: "Read", range: client.range({ prefix: "open/" }) });
  await client.user("root").create("secret");
  await client.role("root").create();
  await client.user("root").addRole("root");
  await client.user("guest").create("guest");
  await client.user("guest").addRole("reader");
  await client.put("open/a").value("1");
  await client.auth.authEnable();
  const guest = new Etcd3({ hosts, auth: { username: "guest", password: "guest" } });
  assert.equal(await guest.get("open/a").string(), "1");
  await assert.rejects(guest.put("open/a").value("2"), /permission denied/i);
  await assert.rejects(guest.get("closed").string(), /permission denied/i);
  guest.close();
}

(async () => {
  for (const step of [keys, transactions, watches, leases, locks, elections, users]) {
    await step();
    console.log("ok", step.name);
  }
  client.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
