package reader

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/coordinator/state/sqlite"
	"github.com/daybook-dev/daybook/logs/types"
	"github.com/daybook-dev/daybook/storage/memory"
)

// When as many calls are held as may be, the others are answered as they are; and a call that ends makes room.
func TestHeldCallsAreBounded(t *testing.T) {
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	now := time.Now().UTC().Truncate(time.Microsecond)
	p := &state.Prefix{Project: "local", Prefix: "a", Secret: types.NewPrefixSecret(), Created: now, Expires: now}
	s := &state.Stream{Prefix: p, ID: p.Prefix.Join("s").ID(), Name: "s", Created: now, Updated: now}
	err = store.Update(t.Context(), func(tx state.Tx) error {
		if err := tx.AddPrefix(p); err != nil {
			return err
		}
		return tx.AddStream(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Store: store, Storage: memory.New(), Access: access.Open(), Settings: config.Default()})
	defer r.Close()
	// As the tool that is held the longest.
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("user-agent", patientUserAgent))
	read := func(ctx context.Context) time.Duration {
		t.Helper()
		began := time.Now()
		if _, logs, err := r.readOrHold(ctx, s, wanted{bytes: maxGetBytes}); err != nil || len(logs) > 0 {
			t.Errorf("%v, %v", logs, err)
		}
		return time.Since(began)
	}
	for range cap(r.held) {
		r.held <- struct{}{}
	}
	if took := read(ctx); took > patientHoldTime/2 {
		t.Errorf("answered after %v, though too many calls are held", took)
	}
	<-r.held
	brief, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if took := read(brief); took < time.Second/2 {
		t.Errorf("answered after %v, though there is room", took)
	}
	if free := cap(r.held) - len(r.held); free != 1 {
		t.Errorf("%d places are free", free)
	}
}
