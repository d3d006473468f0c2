// Command bench measures Daybook as its users meet it, and prints one table.
//
//	go run ./bench [-runs N] [-row REGEXP]
//
// A row is a function that measures once and reports figures; each is run several times, on a fresh data directory, and
// the table shows medians with the least and the most beside them. Where a figure has a baseline, such as the same command without
// Daybook, both are measured in the same run, so that their ratio means something on a busy machine too. A new row is a
// function in a file of its own and a line in rows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"runtime/debug"

	"github.com/daybook-dev/daybook/internal/testkit"
	"github.com/daybook-dev/daybook/journal/protocol"
	"github.com/daybook-dev/daybook/logs/envelope"
)

// rows is the table's order.
var rows = []row{
	{"capture/server", func(r *run) { measureCapture(r, true) }},
	{"capture/solo", func(r *run) { measureCapture(r, false) }},
	{"follow/1-per-s", func(r *run) { measureFollow(r, 1, 15) }},
	{"follow/100-per-s", func(r *run) { measureFollow(r, 100, 5) }},
	{"follow/10000-per-s", func(r *run) { measureFollow(r, 10_000, 5) }},
	{"followers/1000-on-1-stream", func(r *run) { measureFollowers(r, 1000, 1, 1000) }},
	{"followers/1000-on-1000-streams", func(r *run) { measureFollowers(r, 1000, 1000, 1000) }},
	{"restart/sqlite", measureRestart},
	{"append/1-client", func(r *run) { measureAppend(r, 1, 1<<10) }},
	{"append/8-clients", func(r *run) { measureAppend(r, 8, 1<<10) }},
	{"append/64-clients", func(r *run) { measureAppend(r, 64, 1<<10) }},
	{"append/64-clients-4k", func(r *run) { measureAppend(r, 64, 4<<10) }},
	{"append/calls-1-client", func(r *run) { measureAppendCalls(r, 1, 1<<10) }},
	{"append/calls-64-clients-4k", func(r *run) { measureAppendCalls(r, 64, 4<<10) }},
	{"append/large", measureLargeAppend},
	{"service/100-bytes-1-journal", func(r *run) { measureService(r, 100, 1) }},
	{"service/100-bytes-8-journals", func(r *run) { measureService(r, 100, 8) }},
	{"service/1-KiB-1-journal", func(r *run) { measureService(r, 1<<10, 1) }},
	{"service/1-KiB-8-journals", func(r *run) { measureService(r, 1<<10, 8) }},
	{"journal/backlog", measureBacklog},
	{"fragments/plain", func(r *run) { measureFragments(r, protocol.CompressionCodec_NONE) }},
	{"fragments/zstd", func(r *run) { measureFragments(r, protocol.CompressionCodec_ZSTANDARD) }},
	{"journal/wake", measureWake},
	{"journal/waiting", measureWaiting},
	{"state/register-sqlite", func(r *run) { measureRegister(r, sqliteState(r)) }},
	{"state/register-postgres", func(r *run) { measureRegister(r, postgresState(r)) }},
	{"state/find-sqlite", func(r *run) { measureFind(r, sqliteState(r)) }},
	{"state/find-postgres", func(r *run) { measureFind(r, postgresState(r)) }},
	{"collect/memory/zstd", func(r *run) { measureCollect(r, memoryEntries, envelope.Zstd) }},
	{"collect/memory/zlib", func(r *run) { measureCollect(r, memoryEntries, envelope.Zlib) }},
	{"collect/pebble/zstd", func(r *run) { measureCollect(r, pebbleEntries, envelope.Zstd) }},
	{"collect/pebble/zlib", func(r *run) { measureCollect(r, pebbleEntries, envelope.Zlib) }},
	{"collect/journal/pebble", func(r *run) { measureCollectJournal(r, pebbleEntries, envelope.Zstd) }},
	{"collect/postgres/zstd", func(r *run) { measureCollect(r, postgresEntries, envelope.Zstd) }},
	{"collect/postgres/zlib", func(r *run) { measureCollect(r, postgresEntries, envelope.Zlib) }},
	{"butler/null/1-stream", func(r *run) { measureButler(r, work{Kind: "lines", Streams: 1, Bytes: 1 << 30}) }},
	{"butler/null/8-streams", func(r *run) { measureButler(r, work{Kind: "lines", Streams: 8, Bytes: 1 << 30}) }},
	{"butler/null/64-streams", func(r *run) { measureButler(r, work{Kind: "lines", Streams: 64, Bytes: 1 << 30}) }},
	{"butler/null/4000-idle", func(r *run) { measureButler(r, work{Kind: "lines", Streams: 1, Idle: 4000, Bytes: 1 << 30}) }},
	{"butler/null/1-byte-writes", func(r *run) { measureButler(r, work{Kind: "one-byte", Streams: 1, Bytes: 8 << 20}) }},
	{"butler/null/64-byte-writes", func(r *run) { measureButler(r, work{Kind: "64-bytes", Streams: 1, Bytes: 128 << 20}) }},
	{"butler/null/10-MiB-lines", func(r *run) { measureButler(r, work{Kind: longLines, Streams: 1, Bytes: 1 << 30}) }},
	{"butler/null/datagrams", func(r *run) { measureButler(r, work{Kind: "1-KiB-packets", Streams: 1, Bytes: 1 << 30}) }},
	{"butler/null/20-secrets", func(r *run) { measureButler(r, work{Kind: "lines", Streams: 1, Bytes: 1 << 29, Values: 20}) }},
	{"butler/null/pattern", func(r *run) {
		measureButler(r, work{Kind: "lines", Streams: 1, Bytes: 1 << 27, Pattern: `token=[0-9a-f]{16}`})
	}},
	{"butler/null/open", func(r *run) { measureButler(r, work{Open: 10_000}) }},
	{"butler/server/1-stream", func(r *run) { measureButlerToServer(r, work{Kind: "lines", Streams: 1, Bytes: 1 << 29}) }},
	{"butler/server/8-streams", func(r *run) { measureButlerToServer(r, work{Kind: "lines", Streams: 8, Bytes: 1 << 29}) }},
	{"butler/server/64-streams", func(r *run) { measureButlerToServer(r, work{Kind: "lines", Streams: 64, Bytes: 1 << 29}) }},
	{"butler/server/4000-idle", func(r *run) { measureButlerToServer(r, work{Kind: "lines", Streams: 1, Idle: 4000, Bytes: 1 << 29}) }},
	{"butler/server/1-byte-writes", func(r *run) { measureButlerToServer(r, work{Kind: "one-byte", Streams: 1, Bytes: 8 << 20}) }},
	{"butler/server/64-byte-writes", func(r *run) { measureButlerToServer(r, work{Kind: "64-bytes", Streams: 1, Bytes: 64 << 20}) }},
	{"butler/server/10-MiB-lines", func(r *run) { measureButlerToServer(r, work{Kind: longLines, Streams: 1, Bytes: 1 << 29}) }},
	{"butler/server/datagrams", func(r *run) { measureButlerToServer(r, work{Kind: "1-KiB-packets", Streams: 1, Bytes: 1 << 29}) }},
	{"run/8-byte-lines", func(r *run) { measureRun(r, "seq", "1", "10000000") }},
	{"run/80-byte-lines", func(r *run) { measureRun(r, printer(r), printerArg, "lines") }},
	{"run/into-cat", func(r *run) { measureRunIntoCat(r, "seq 1 10000000") }},
	{"run/busy-command", func(r *run) { measureRun(r, printer(r), printerArg, "busy") }},
}

func main() {
	if runAsStamper(os.Args[1:]) || runAsFloor(os.Args[1:]) || runAsButler(os.Args[1:]) || runAsPrinter(os.Args[1:]) {
		return
	}
	if os.Getenv("GOGC") == "" {
		// The clients share the machine with what they measure, and should collect less than work.
		debug.SetGCPercent(400)
	}
	runs := flag.Int("runs", 3, "how often each row is measured; the table shows medians")
	only := flag.String("row", "", "measure only the rows that match this regular expression")
	flag.Parse()
	if err := bench(*runs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(runs int, only string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	match, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-row: %w", err)
	}
	if runs < 1 {
		return fmt.Errorf("-runs %d: at least one", runs)
	}
	dir, err := os.MkdirTemp("", "daybook-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin, err := testkit.Build(ctx, dir)
	if err != nil {
		return err
	}
	if bin, err = install(bin, dir); err != nil {
		return err
	}

	var results []result
	for _, row := range rows {
		if !match.MatchString(row.name) {
			continue
		}
		t := newTally(row.name)
		for i := range runs {
			fmt.Fprintf(os.Stderr, "bench: %s, run %d of %d\n", row.name, i+1, runs)
			if err := measure(ctx, bin, row, t); err != nil {
				return fmt.Errorf("%s: %w", row.name, err)
			}
		}
		results = append(results, t.results()...)
	}
	fmt.Printf("%s/%s, %d CPUs, %s, medians of %d runs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), runs)
	return printTable(os.Stdout, results)
}
