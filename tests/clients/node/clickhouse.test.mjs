// @clickhouse/client against the endpoint of the project.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, describe, test } from 'node:test';
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';

const env = process.env;
const ENDLESS = 'SELECT sum(sleepEachRow(0.05)) FROM system.numbers SETTINGS max_block_size = 1';

function connect(more = {}) {
  return createClient({
    url: `http://${env.CLICKHOUSE_HOST}:${env.CLICKHOUSE_PORT}`,
    username: env.CLICKHOUSE_USER,
    password: env.CLICKHOUSE_PASSWORD,
    database: env.CLICKHOUSE_DATABASE,
    log: { level: ClickHouseLogLevel.OFF },
    ...more,
  });
}

for (const compressed of [false, true]) {
  describe(compressed ? 'gzip' : 'plain', () => {
    const client = connect({ compression: { request: compressed, response: compressed } });
    after(() => client.close());

    const rows = async (query, more = {}) =>
      (await client.query({ query, format: 'JSONEachRow', ...more })).json();
    const until = async (id, wanted) => {
      for (let i = 0; i < 600; i++) {
        const [found] = await rows('SELECT count()::UInt8 AS n FROM system.processes WHERE query_id = {id:String}', { query_params: { id } });
        if (found.n === wanted) return;
        await sleep(50);
      }
      assert.fail(`the query ${id} did not get to be ${wanted}`);
    };

    test('ping, by /ping and by a query', async () => {
      assert.equal((await client.ping()).success, true);
      assert.equal((await client.ping({ select: true })).success, true);
    });

    test('types', async () => {
      const result = await client.query({
        query: `SELECT toDateTime('2026-01-02 03:04:05', 'Asia/Tokyo') AS tokyo, 1::UInt64 AS u64,
          '0.000000000000000001'::Decimal(38, 18) AS d, NULL::Nullable(String) AS n, 'x'::LowCardinality(String) AS l,
          [1, 2]::Array(UInt8) AS a, map('k', 1::UInt8) AS m, tuple(1::UInt8, 'é') AS t, true AS b`,
        format: 'JSON',
      });
      const { data, meta } = await result.json();
      assert.equal(meta[0].type, "DateTime('Asia/Tokyo')");
      assert.deepEqual(data[0], {
        tokyo: '2026-01-02 03:04:05', u64: data[0].u64, d: data[0].d, n: null, l: 'x', a: [1, 2], m: { k: 1 }, t: [1, 'é'], b: true,
      });
      assert.equal(Number(data[0].u64), 1);
      assert.equal(Number(data[0].d), 1e-18);
    });

    test('inserts, of an array and of a stream', async () => {
      const table = `node_${randomUUID().replaceAll('-', '')}`;
      await client.command({ query: `CREATE TABLE ${table} (a UInt64, b Nullable(String)) ENGINE = MergeTree ORDER BY a` });
      const one = await client.insert({ table, values: [{ a: 1, b: 'é' }, { a: 2, b: null }], format: 'JSONEachRow' });
      assert.equal(one.executed, true);
      assert.equal(one.summary.written_rows, '2');
      const stream = Readable.from((function* () {
        for (let i = 0; i < 50_000; i++) yield [i, 'row'];
      })(), { objectMode: true });
      await client.insert({ table, values: stream, format: 'JSONCompactEachRow' });
      assert.deepEqual(await rows(`SELECT count()::UInt32 AS n, countIf(b IS NULL)::UInt32 AS z FROM ${table}`), [{ n: 50_002, z: 1 }]);
      await client.command({ query: `DROP TABLE ${table}` });
    });

    test('parameters are bound by the server', async () => {
      const s = "'; DROP TABLE x; --\t\\é\n";
      const found = await rows('SELECT {s:String} AS s, {n:UInt8} + 1 AS n, {l:Array(String)} AS l, {z:Nullable(String)} AS z, {d:DateTime(\'UTC\')} AS d', {
        query_params: { s, n: 41, l: ['a', "b'"], z: null, d: new Date('2026-01-02T03:04:05Z') },
      });
      assert.deepEqual(found, [{ s, n: 42, l: ['a', "b'"], z: null, d: '2026-01-02 03:04:05' }]);
    });

    test('errors have their code and type', async () => {
      await assert.rejects(rows('SELECT * FROM nowhere'), { code: '60', type: 'UNKNOWN_TABLE' });
      await assert.rejects(rows('SELEC 1'), { code: '62' });
      await assert.rejects(client.command({ query: 'DROP TABLE nowhere' }), { code: '60' });
    });

    test('an error in mid-stream is an error', async () => {
      await assert.rejects(async () => {
        const result = await client.query({
          query: "SELECT number, throwIf(number = 700000, 'late') AS x FROM numbers(1000000)",
          format: 'JSONEachRow', clickhouse_settings: { max_block_size: '65536' },
        });
        for await (const _ of result.stream()) { /* read on */ }
      }, /late|aborted|terminated|ended/);
    });

    test('a large result is streamed', async () => {
      const result = await client.query({ query: 'SELECT number::UInt32 AS n, toString(number) AS s FROM numbers(300000)', format: 'JSONCompactEachRow' });
      let count = 0;
      let sum = 0;
      for await (const chunk of result.stream()) {
        for (const row of chunk) {
          count++;
          sum += row.json()[0];
        }
      }
      assert.deepEqual([count, sum], [300_000, 44_999_850_000]);
    });

    test('a query has the id that it was given, and is killed by it', async () => {
      const query_id = randomUUID();
      const running = rows(ENDLESS, { query_id });
      running.catch(() => {});
      await until(query_id, 1);
      await client.command({ query: 'KILL QUERY WHERE query_id = {id:String}', query_params: { id: query_id } });
      await assert.rejects(running, { code: '394' });
      const result = await client.query({ query: 'SELECT queryID() AS id', query_id, format: 'JSONEachRow' });
      assert.equal(result.query_id, query_id);
      assert.deepEqual(await result.json(), [{ id: query_id }]);
    });

    test('a request that is aborted ends its query', async () => {
      const query_id = randomUUID();
      const controller = new AbortController();
      const running = rows(ENDLESS, { query_id, abort_signal: controller.signal });
      running.catch(() => {});
      await until(query_id, 1);
      controller.abort();
      await assert.rejects(running, /aborted/);
      await until(query_id, 0);
    });

    test('a session keeps its tables', async () => {
      const session = connect({ session_id: randomUUID(), max_open_connections: 1 });
      await session.command({ query: 'CREATE TEMPORARY TABLE kept (a UInt8)' });
      await session.insert({ table: 'kept', values: [{ a: 5 }], format: 'JSONEachRow' });
      const result = await session.query({ query: 'SELECT a FROM kept', format: 'JSONEachRow' });
      assert.deepEqual(await result.json(), [{ a: 5 }]);
      await session.close();
    });

    test("the project's views", async () => {
      assert.deepEqual(
        await rows("SELECT tenant, count()::UInt32 AS n, toString(sum(cost_usd)) AS cost FROM cost_requests WHERE source = 'test' GROUP BY tenant ORDER BY tenant"),
        [{ tenant: 'acme', n: 500, cost: '0.00000000000025' }, { tenant: 'globex', n: 500, cost: '0.0000000000002505' }],
      );
      assert.deepEqual(
        await rows("SELECT count()::UInt32 AS n, toString(sum(cost_usd)) AS cost FROM cost_windows WHERE window_seconds = 60 AND tenant = 'acme'"),
        [{ n: 10, cost: '5' }],
      );
    });
  });
}

test('a client that names no database finds the views', async () => {
  const client = connect({ database: undefined });
  const result = await client.query({ query: 'SELECT currentDatabase() AS d', format: 'JSONEachRow' });
  // This client says `default` where it is told nothing, so the views are to be named with their database.
  assert.ok(['default', env.CLICKHOUSE_DATABASE].includes((await result.json())[0].d));
  const lines = await client.query({ query: `SELECT count()::UInt32 AS n FROM ${env.CLICKHOUSE_DATABASE}.cost_requests`, format: 'JSONEachRow' });
  assert.deepEqual(await lines.json(), [{ n: 1000 }]);
  await client.close();
});
