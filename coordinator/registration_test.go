package coordinator_test

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/daybook-dev/daybook/api/ingest"
	"github.com/daybook-dev/daybook/api/logdog"
	"github.com/daybook-dev/daybook/logs/types"
)

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

func TestRegisterPrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		nonce := bytes.Repeat([]byte{7}, 32)
		wish := bytes.Repeat([]byte{8}, 36)
		first := &logdog.RegisterPrefixRequest{Project: project, Prefix: "a/b", OpNonce: nonce, SourceInfo: []string{"me"}, Realm: "ci"}
		resp, err := h.Registration().RegisterPrefix(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetSecret()) != 36 || resp.GetIngestJournal() != ingest.DefaultJournal || !resp.GetAcceptsZstd() ||
			resp.GetViewerUrl() != "http://daybook/logs/local/a/b" {
			t.Errorf("response: %v", resp)
		}
		topic := regexp.MustCompile(`^projects/[^/]+/topics/[a-zA-Z][a-zA-Z0-9._~+%-]{2,254}$`)
		if !topic.MatchString(resp.GetLogBundleTopic()) {
			t.Errorf("topic %q", resp.GetLogBundleTopic())
		}
		p, err := h.store.Prefix(t.Context(), project, "a/b")
		if err != nil || p.Realm != "ci" || p.Source[0] != "me" || !p.Expires.Equal(p.Created.Add(7*dayLater)) {
			t.Errorf("stored: %+v, %v", p, err)
		}

		// The same registration is answered with the same secret, whenever it comes, and whatever else it says.
		time.Sleep(dayLater)
		again := &logdog.RegisterPrefixRequest{Project: project, Prefix: "a/b", OpNonce: nonce, WishedSecret: wish}
		if r, err := h.Registration().RegisterPrefix(t.Context(), again); err != nil || !bytes.Equal(r.GetSecret(), resp.GetSecret()) {
			t.Errorf("again: %v", err)
		}
		for name, other := range map[string][]byte{"other nonce": bytes.Repeat([]byte{9}, 32), "no nonce": nil, "short nonce": nonce[1:]} {
			_, err := h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: "a/b", OpNonce: other})
			wantCode(t, name, err, codes.AlreadyExists)
		}

		// A wish is honoured, but only from those who have a nonce.
		r, err := h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: "c", OpNonce: nonce, WishedSecret: wish})
		if err != nil || !bytes.Equal(r.GetSecret(), wish) {
			t.Errorf("wish: %v", err)
		}
		r, err = h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: "d", WishedSecret: wish})
		if err != nil || bytes.Equal(r.GetSecret(), wish) {
			t.Errorf("wish without nonce: %v", err)
		}
	})
}

func TestRegisterPrefixRefusals(t *testing.T) {
	h := newHouse(t)
	for name, change := range map[string]func(*logdog.RegisterPrefixRequest){
		"no project":   func(r *logdog.RegisterPrefixRequest) { r.Project = "" },
		"bad project":  func(r *logdog.RegisterPrefixRequest) { r.Project = "Local" },
		"no prefix":    func(r *logdog.RegisterPrefixRequest) { r.Prefix = "" },
		"bad prefix":   func(r *logdog.RegisterPrefixRequest) { r.Prefix = "a/+/b" },
		"bad realm":    func(r *logdog.RegisterPrefixRequest) { r.Realm = "@other" },
		"short nonce":  func(r *logdog.RegisterPrefixRequest) { r.OpNonce = r.OpNonce[1:] },
		"short wish":   func(r *logdog.RegisterPrefixRequest) { r.WishedSecret = []byte("x") },
		"bad duration": func(r *logdog.RegisterPrefixRequest) { r.Expiration = &durationpb.Duration{Seconds: 1, Nanos: -1} },
		"large source": func(r *logdog.RegisterPrefixRequest) { r.SourceInfo = []string{string(make([]byte, 100<<10))} },
	} {
		r := &logdog.RegisterPrefixRequest{Project: project, Prefix: "a", OpNonce: make([]byte, 32)}
		change(r)
		_, err := h.Registration().RegisterPrefix(t.Context(), r)
		wantCode(t, name, err, codes.InvalidArgument)
	}
}

func TestPrefixWindow(t *testing.T) {
	h := newHouse(t)
	for i, test := range []struct {
		wish *durationpb.Duration
		want time.Duration
	}{
		{nil, 7 * dayLater}, {seconds(60), time.Minute}, {seconds(-1), 7 * dayLater}, {seconds(0), 7 * dayLater}, {seconds(1e9), 7 * dayLater},
	} {
		r := &logdog.RegisterPrefixRequest{Project: project, Prefix: fmt.Sprint("p", i), Expiration: test.wish}
		if _, err := h.Registration().RegisterPrefix(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		p, err := h.store.Prefix(t.Context(), project, types.StreamName(r.Prefix))
		if err != nil || p.Expires.Sub(p.Created) != test.want {
			t.Errorf("%v: %v, %v", test.wish, p.Expires.Sub(p.Created), err)
		}
	}
}

// Of several first calls with one nonce each gets the secret that was stored; with different nonces one gets it.
func TestRegisterPrefixAtOnce(t *testing.T) {
	h := newHouse(t)
	const callers = 20
	secrets := make([][]byte, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			r, err := h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: "p", OpNonce: make([]byte, 32)})
			if err != nil {
				t.Error(err)
			}
			secrets[i] = r.GetSecret()
		})
	}
	wg.Wait()
	p, err := h.store.Prefix(t.Context(), project, "p")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range secrets {
		if !p.Secret.Equal(s) {
			t.Errorf("caller %d has another secret", i)
		}
	}
}

// The start of 500 commands at once.
func TestManyRegistrations(t *testing.T) {
	h := newHouse(t)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			prefix := fmt.Sprint("burst/", i)
			r, err := h.Registration().RegisterPrefix(t.Context(), &logdog.RegisterPrefixRequest{Project: project, Prefix: prefix, OpNonce: make([]byte, 32)})
			if err != nil {
				t.Error(err)
				return
			}
			for _, name := range []string{"stdout", "stderr"} {
				d := descriptor(name)
				d.Prefix = prefix
				desc, err := proto.Marshal(d)
				if err != nil {
					t.Error(err)
				}
				_, err = h.Services().RegisterStream(t.Context(), &logdog.RegisterStreamRequest{
					Project: project, Secret: r.GetSecret(), ProtoVersion: "1", Desc: desc, TerminalIndex: -1,
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("500 prefixes and 1000 streams in %v", time.Since(begin))
}
