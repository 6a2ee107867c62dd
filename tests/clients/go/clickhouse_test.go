// Package clients tests clickhouse-go, over HTTP, against the endpoint of the project.
package clients

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

var compressions = map[string]*clickhouse.Compression{
	"plain": nil,
	"lz4":   {Method: clickhouse.CompressionLZ4},
	"zstd":  {Method: clickhouse.CompressionZSTD},
	"gzip":  {Method: clickhouse.CompressionGZIP, Level: 3},
}

func options(compression *clickhouse.Compression, settings clickhouse.Settings) *clickhouse.Options {
	return &clickhouse.Options{
		Protocol: clickhouse.HTTP,
		Addr:     []string{net.JoinHostPort(os.Getenv("CLICKHOUSE_HOST"), os.Getenv("CLICKHOUSE_PORT"))},
		Auth: clickhouse.Auth{
			Database: os.Getenv("CLICKHOUSE_DATABASE"),
			Username: os.Getenv("CLICKHOUSE_USER"),
			Password: os.Getenv("CLICKHOUSE_PASSWORD"),
		},
		Compression: compression,
		Settings:    settings,
	}
}

func each(t *testing.T, test func(t *testing.T, conn driver.Conn)) {
	t.Helper()
	for name, compression := range compressions {
		t.Run(name, func(t *testing.T) {
			settings := clickhouse.Settings{}
			if name == "gzip" {
				settings["enable_http_compression"] = 1
			}
			conn, err := clickhouse.Open(options(compression, settings))
			must(t, err)
			defer conn.Close()
			test(t, conn)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

func TestPingAndVersion(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		must(t, conn.Ping(context.Background()))
		version, err := conn.ServerVersion()
		must(t, err)
		if version.Version.Major < 26 {
			t.Fatalf("version %v", version)
		}
	})
}

func TestTypes(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		var (
			u8    uint8
			i256  *big.Int
			f64   float64
			flag  bool
			text  string
			null  *string
			low   string
			fixed string
			id    uuid.UUID
			plain time.Time
			berln time.Time
			tokyo time.Time
			date  time.Time
			money decimal.Decimal
			array []int64
			deep  [][]string
			maps  map[string]uint64
			tuple []any
			enum  string
			tail  string
		)
		row := conn.QueryRow(context.Background(), `SELECT 255::UInt8, -1::Int256, 0.5::Float64, true, 'é\0x',
			NULL::Nullable(String), 'low'::LowCardinality(Nullable(String)), 'ab'::FixedString(2),
			'61f0c404-5cb3-11e7-907b-a6006ad3dba0'::UUID, toDateTime('2026-01-02 03:04:05', 'UTC'),
			toDateTime('2026-07-02 03:04:05', 'Europe/Berlin'),
			toDateTime64('2026-01-02 03:04:05.678901', 6, 'Asia/Tokyo'), toDate32('1950-01-02'),
			'-12345678901234567890.123456789012345678'::Decimal(38, 18), [1, -2, 3]::Array(Int64),
			[['a'], [], ['b', 'c']], map('k', 7::UInt64), tuple(1::UInt8, 'x'),
			'b'::Enum8('a' = 1, 'b' = 2), 'the end'`)
		must(t, row.Scan(&u8, &i256, &f64, &flag, &text, &null, &low, &fixed, &id, &plain, &berln, &tokyo, &date,
			&money, &array, &deep, &maps, &tuple, &enum, &tail))
		equal(t, []any{u8, i256.String(), f64, flag, text, null == nil, low, fixed}, []any{uint8(255), "-1", 0.5, true, "é\x00x", true, "low", "ab"})
		equal(t, id.String(), "61f0c404-5cb3-11e7-907b-a6006ad3dba0")
		equal(t, plain.UTC(), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		equal(t, []string{plain.Location().String(), berln.Location().String(), tokyo.Location().String()}, []string{"UTC", "Europe/Berlin", "Asia/Tokyo"})
		equal(t, berln.UTC(), time.Date(2026, 7, 2, 1, 4, 5, 0, time.UTC))
		equal(t, tokyo.UTC(), time.Date(2026, 1, 1, 18, 4, 5, 678901000, time.UTC))
		equal(t, date.Format("2006-01-02"), "1950-01-02")
		equal(t, money.String(), "-12345678901234567890.123456789012345678")
		equal(t, array, []int64{1, -2, 3})
		equal(t, deep, [][]string{{"a"}, {}, {"b", "c"}})
		equal(t, maps, map[string]uint64{"k": 7})
		equal(t, fmt.Sprint(tuple), "[1 x]")
		equal(t, []string{enum, tail}, []string{"b", "the end"})
	})
}

func TestAResultWithoutRows(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		rows, err := conn.Query(context.Background(), "SELECT number AS a, now('UTC') AS b FROM numbers(10) WHERE number > 20")
		must(t, err)
		equal(t, rows.Next(), false)
		must(t, rows.Err())
	})
}

func TestInsertsInBatches(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		ctx := context.Background()
		table := "batch_" + strings.ReplaceAll(uuid.NewString(), "-", "")
		must(t, conn.Exec(ctx, "CREATE TABLE "+table+` (a UInt64, b LowCardinality(String), c Nullable(Decimal(38, 18)),
			d DateTime('Europe/Berlin'), e Array(Tuple(String, Int8)), f Map(String, Array(UInt8))) ENGINE = MergeTree ORDER BY a`))
		defer conn.Exec(ctx, "DROP TABLE "+table)
		when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		for part := 0; part < 3; part++ {
			batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+table)
			must(t, err)
			for i := 0; i < 20_000; i++ {
				var c *decimal.Decimal
				if i%2 == 0 {
					value := decimal.RequireFromString("0.000000000000000001")
					c = &value
				}
				must(t, batch.Append(uint64(part*20_000+i), fmt.Sprint("t", i%5), c, when, []any{[]any{"x", int8(-1)}}, map[string][]uint8{"k": {1, 2}}))
			}
			must(t, batch.Send())
		}
		var count, distinct, nulls uint64
		var sum decimal.Decimal
		var last time.Time
		must(t, conn.QueryRow(ctx, "SELECT count(), uniqExact(a), countIf(c IS NULL), sum(c), max(d) FROM "+table).Scan(&count, &distinct, &nulls, &sum, &last))
		equal(t, []uint64{count, distinct, nulls}, []uint64{60_000, 60_000, 30_000})
		equal(t, sum.String(), "0.00000000000003")
		equal(t, last.UTC(), when)
	})
}

func TestParameters(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		injection := "'; DROP TABLE x; --é"
		ctx := clickhouse.Context(context.Background(), clickhouse.WithParameters(clickhouse.Parameters{"n": "41", "s": injection}))
		var n uint64
		var s, positional string
		must(t, conn.QueryRow(ctx, "SELECT {n:UInt8} + 1::UInt64, {s:String}").Scan(&n, &s))
		equal(t, []any{n, s}, []any{uint64(42), injection})
		must(t, conn.QueryRow(context.Background(), "SELECT ?", injection).Scan(&positional))
		equal(t, positional, injection)
	})
}

func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		var found *clickhouse.Exception
		for query, code := range map[string]int32{"SELECT * FROM nowhere": 60, "SELEC 1": 62, "SELECT throwIf(1)": 395} {
			_, err := conn.Query(context.Background(), query)
			if !errors.As(err, &found) || found.Code != code {
				t.Fatalf("%s: %v", query, err)
			}
		}
		must(t, conn.Ping(context.Background()))
	})
}

func TestAnErrorInMidStream(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		rows, err := conn.Query(context.Background(), "SELECT number, throwIf(number = 700000, 'late') FROM numbers(1000000) SETTINGS max_block_size = 65536")
		for err == nil && rows.Next() {
		}
		if err == nil {
			err = rows.Err()
		}
		if err == nil || !strings.Contains(err.Error(), "late") {
			t.Fatalf("no error, or another: %v", err)
		}
	})
}

func TestLargeResults(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		rows, err := conn.Query(context.Background(), "SELECT number, toString(number), [number] FROM numbers(300000)")
		must(t, err)
		var number, sum uint64
		var text string
		var list []uint64
		for rows.Next() {
			must(t, rows.Scan(&number, &text, &list))
			sum += list[0]
		}
		must(t, rows.Err())
		equal(t, sum, uint64(44999850000))
	})
}

func TestQueryIdsAndKill(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		id := uuid.NewString()
		ctx := clickhouse.Context(context.Background(), clickhouse.WithQueryID(id))
		var own string
		must(t, conn.QueryRow(ctx, "SELECT queryID()").Scan(&own))
		equal(t, own, id)
		ended := make(chan error, 1)
		go func() {
			var sum uint64
			ended <- conn.QueryRow(ctx, "SELECT sum(sleepEachRow(0.05)) FROM system.numbers SETTINGS max_block_size = 1").Scan(&sum)
		}()
		until(t, conn, id, 1)
		for {
			// A query that is only about to start is not there to be killed: ask until it has ended.
			rows, err := conn.Query(context.Background(), "KILL QUERY WHERE query_id = {id:String}", clickhouse.Named("id", id))
			must(t, err)
			rows.Close()
			select {
			case err := <-ended:
				var found *clickhouse.Exception
				if !errors.As(err, &found) || found.Code != 394 {
					t.Fatalf("it was not killed: %v", err)
				}
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
}

func TestCancellation(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		id := uuid.NewString()
		cancelled, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			var sum uint64
			ctx := clickhouse.Context(cancelled, clickhouse.WithQueryID(id))
			ended <- conn.QueryRow(ctx, "SELECT sum(sleepEachRow(0.05)) FROM system.numbers SETTINGS max_block_size = 1").Scan(&sum)
		}()
		until(t, conn, id, 1)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		until(t, conn, id, 0)
	})
}

func until(t *testing.T, conn driver.Conn, id string, wanted uint64) {
	t.Helper()
	for range 600 {
		var running uint64
		must(t, conn.QueryRow(context.Background(), "SELECT count() FROM system.processes WHERE query_id = ?", id).Scan(&running))
		if running == wanted {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("the query %s did not get to be %d", id, wanted)
}

func TestSessions(t *testing.T) {
	for name, compression := range compressions {
		t.Run(name, func(t *testing.T) {
			settings := clickhouse.Settings{"session_id": uuid.NewString(), "session_timeout": 30}
			opened := options(compression, settings)
			opened.MaxOpenConns = 1
			conn, err := clickhouse.Open(opened)
			must(t, err)
			defer conn.Close()
			ctx := context.Background()
			must(t, conn.Exec(ctx, "CREATE TEMPORARY TABLE kept (a UInt8)"))
			must(t, conn.Exec(ctx, "INSERT INTO kept VALUES (5), (6)"))
			var sum uint64
			must(t, conn.QueryRow(ctx, "SELECT sum(a) FROM kept").Scan(&sum))
			equal(t, sum, uint64(11))
		})
	}
}

func TestTheProjectsViews(t *testing.T) {
	each(t, func(t *testing.T, conn driver.Conn) {
		ctx := context.Background()
		rows, err := conn.Query(ctx, "SELECT tenant, count(), sum(cost_usd), max(time) FROM cost_requests WHERE source = 'test' GROUP BY tenant ORDER BY tenant")
		must(t, err)
		var tenants []string
		for rows.Next() {
			var tenant string
			var lines uint64
			var cost decimal.Decimal
			var last time.Time
			must(t, rows.Scan(&tenant, &lines, &cost, &last))
			tenants = append(tenants, fmt.Sprint(tenant, " ", lines, " ", cost, " ", last.Location()))
		}
		must(t, rows.Err())
		equal(t, tenants, []string{"acme 500 0.00000000000025 UTC", "globex 500 0.0000000000002505 UTC"})
		var windows uint64
		var cost decimal.Decimal
		var start time.Time
		must(t, conn.QueryRow(ctx, "SELECT count(), sum(cost_usd), min(window_start) FROM cost_windows WHERE window_seconds = 60 AND tenant = 'acme'").Scan(&windows, &cost, &start))
		equal(t, []any{windows, cost.String(), start.UTC()}, []any{uint64(10), "5", time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)})
		all, err := conn.Query(ctx, "SELECT * FROM cost_requests LIMIT 10")
		must(t, err)
		count := 0
		for all.Next() {
			count++
		}
		must(t, all.Err())
		equal(t, count, 10)
	})
}
