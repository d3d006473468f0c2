package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/daybook-dev/daybook/journal/fragment"
	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// flaky is a broker of one journal, and the store of its fragments, of which both fail at random.
type flaky struct {
	mu        sync.Mutex
	rnd       *rand.Rand
	faults    int // that are left
	content   []byte
	fragments []*pb.Fragment // of the beginning of the content
	files     map[string][]byte
	url       string
}

func newFlaky(t *testing.T, seed uint64) *flaky {
	t.Helper()
	f := &flaky{rnd: rand.New(rand.NewPCG(seed, 0)), faults: 12, files: make(map[string][]byte)}
	for i := range 3000 + f.rnd.IntN(30_000) {
		f.content = append(f.content, fmt.Sprintln(i)...)
	}
	for begin := 0; len(f.fragments) < 4; {
		end := begin + 1 + f.rnd.IntN(len(f.content)/5)
		codec := allCodecs[f.rnd.IntN(len(allCodecs))]
		fr := &pb.Fragment{
			Journal: "test/journal", Begin: int64(begin), End: int64(end), Sum: pb.SHA1SumOf(f.content[begin:end]),
			CompressionCodec: codec, BackingStore: "s3://bucket/", ModTime: 1,
		}
		var file bytes.Buffer
		w, err := fragment.NewWriter(&file, codec)
		wantNil(t, err)
		_, err = w.Write(f.content[begin:end])
		wantNil(t, errors.Join(err, w.Close()))
		f.fragments = append(f.fragments, fr)
		f.files["/"+fr.ContentPath()] = file.Bytes()
		begin = end
	}
	base, _, _ := strings.Cut(httpStore(t, f.serve), "/x?")
	f.url = base
	return f
}

// fault returns how many steps are left until something fails; many if nothing does.
func (f *flaky) fault(steps int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults == 0 || f.rnd.IntN(3) == 0 {
		return 1 << 30
	}
	f.faults--
	return f.rnd.IntN(steps + 1)
}

// serve is the store. It cuts connections.
func (f *flaky) serve(w http.ResponseWriter, r *http.Request) {
	file := f.files[r.URL.Path]
	from, status := 0, http.StatusOK
	if s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		from, _ = strconv.Atoi(strings.TrimSuffix(s, "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(file)-1, len(file)))
		status = http.StatusPartialContent
	}
	file = file[from:]
	n := min(f.fault(len(file)), len(file))
	if n == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(file)))
	w.WriteHeader(status)
	_, _ = w.Write(file[:n])
}

func (f *flaky) read(req *pb.ReadRequest, stream pb.Journal_ReadServer) error {
	steps := f.fault(4)
	fail := func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch f.rnd.IntN(3) {
		case 0:
			return nil // As if the broker went away.
		case 1:
			return stream.Send(refusal(pb.Status_INSUFFICIENT_JOURNAL_BROKERS))
		}
		return errUnavailable
	}
	if steps == 0 {
		return fail()
	}
	for _, fr := range f.fragments {
		if req.Offset >= fr.Begin && req.Offset < fr.End {
			return stream.Send(&pb.ReadResponse{
				Header: testHeader(), Offset: req.Offset, WriteHead: int64(len(f.content)), Fragment: fr, FragmentUrl: f.url + "/" + fr.ContentPath(),
			})
		}
	}
	if req.Offset < int64(len(f.content)) {
		_ = stream.Send(metadata(req.Offset, 0, int64(len(f.content))))
		for offset := req.Offset; offset < int64(len(f.content)); {
			if steps--; steps == 0 {
				if fail() == nil {
					return nil
				}
				return errUnavailable
			}
			n := min(1000, int64(len(f.content))-offset)
			_ = stream.Send(content(offset, string(f.content[offset:offset+n])))
			offset += n
		}
	}
	return stream.Send(head(int64(len(f.content))))
}

// Whatever fails, and wherever the reader is told to go, it returns each byte of the place it is at, once.
func TestRetryReaderLosesNothing(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f := newFlaky(t, seed)
			rr := NewRetryReader(t.Context(), (&broker{reads: f.read}).start(t), &pb.ReadRequest{Journal: "test/journal", DoNotProxy: true})
			defer rr.Cancel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			br := bufio.NewReaderSize(rr, 16+rnd.IntN(5000))
			p := make([]byte, 3000)
			at, seeks := int64(0), 20
			for {
				if rr.AdjustedOffset(br) != at {
					t.Fatalf("at %d instead of %d", rr.AdjustedOffset(br), at)
				}
				n, err := br.Read(p[:1+rnd.IntN(len(p))])
				if !bytes.Equal(p[:n], f.content[at:at+int64(n)]) {
					t.Fatalf("at %d: read %.50q instead of %.50q", at, p[:n], f.content[at:at+int64(n)])
				}
				at += int64(n)
				switch {
				case errors.Is(err, io.ErrNoProgress), err == nil:
				case errors.Is(err, ErrOffsetNotYetAvailable) && at == int64(len(f.content)):
					if seeks == 0 {
						return
					}
				default:
					t.Fatalf("at %d: %v", at, err)
				}
				if seeks > 0 && rnd.IntN(4) == 0 {
					seeks--
					to := max(0, at-2000+rnd.Int64N(4000)) // Not far: mostly into the buffer, or what is open.
					if rnd.IntN(5) == 0 {
						to = rnd.Int64N(int64(len(f.content)))
					}
					to = min(to, int64(len(f.content)))
					if at, err = rr.AdjustedSeek(to, io.SeekStart, br); err != nil || at != to {
						t.Fatalf("sought %d and is at %d: %v", to, at, err)
					}
				}
			}
		})
	}
}
