package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/journal/client"
	"github.com/daybook-dev/daybook/journal/protocol"
)

// measureFragments measures how fast a gibibyte goes to a store that is a directory, and how fast it is read from there: by way
// of the broker, and directly.
func measureFragments(r *run, codec protocol.CompressionCodec) {
	const part, parts = 64 << 20, 16
	j := serveJournals(r, 0)
	spec := specOf(0)
	// Each append is a fragment, which is finished by the next one.
	spec.Fragment.Length, spec.Fragment.CompressionCodec, spec.Fragment.Stores = part-1, codec, []string{"file:///"}
	spec.Fragment.RefreshInterval = durationpb.New(time.Hour)
	j.create(spec)
	content := logLines(part)
	start := time.Now()
	for range parts {
		j.append(0, content)
	}
	j.append(0, []byte("the last fragment is not stored\n"))
	stored := j.awaitStored(parts)
	r.report("append and store 1 GiB", bytesPerSecond, parts*part/time.Since(start).Seconds())
	size := int64(0)
	for _, f := range stored {
		size += f.GetSpec().GetEnd() - f.GetSpec().GetBegin()
	}
	rest := int64(len("the last fragment is not stored\n"))
	r.report("read stored, by way of the broker", bytesPerSecond, float64(size)/j.readAll(0, size+rest))

	defer client.InstallFileTransport(filepath.Join(j.data, "fragments"))()
	start = time.Now()
	for _, f := range stored {
		reader, err := client.OpenFragmentURL(r.ctx, f.GetSpec(), f.GetSpec().GetBegin(), f.GetSignedUrl())
		if err != nil {
			r.Fatalf("%v", err)
		}
		n, err := io.Copy(io.Discard, struct{ io.Reader }{reader})
		if err = errors.Join(err, reader.Close()); err != nil || n != f.GetSpec().GetEnd()-f.GetSpec().GetBegin() {
			r.Fatalf("read %d bytes of a fragment: %v", n, err)
		}
	}
	r.report("read stored, directly", bytesPerSecond, float64(size)/time.Since(start).Seconds())
}

// awaitStored waits until the store has n fragments, and returns them.
func (j *journals) awaitStored(n int) []*protocol.FragmentsResponse_XFragment {
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for {
		resp, err := client.ListAllFragments(j.r.ctx, j, &protocol.FragmentsRequest{
			Journal: journalName(0), SignatureTTL: durationpb.New(time.Hour),
		})
		if err != nil {
			j.r.Fatalf("%v", err)
		}
		var stored []*protocol.FragmentsResponse_XFragment
		for _, f := range resp.GetFragments() {
			if f.GetSpec().GetBackingStore() != "" {
				stored = append(stored, f)
			}
		}
		if len(stored) >= n {
			return stored
		}
		select {
		case <-ticks.C:
		case <-j.r.ctx.Done():
			j.r.Fatalf("%v", j.r.ctx.Err())
		}
	}
}

// logLines returns content that compresses as logs do.
func logLines(size int) []byte {
	var b bytes.Buffer
	b.Grow(size + 200)
	for i := uint64(1); b.Len() < size; i++ {
		x := i * 0x9e3779b97f4a7c15
		fmt.Fprintf(&b, "2026-01-02T15:04:05.%06dZ level=info worker=%d msg=\"request served\" path=/v1/items/%x took=%dus status=200\n", i%1e6, x%17, x, x>>50)
	}
	return b.Bytes()[:size]
}
