package disklog

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/journal/broker/engine"
	"github.com/daybook-dev/daybook/journal/broker/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEngine(t *testing.T) {
	enginetest.Test(t, func(t *testing.T) enginetest.Opener {
		dir := t.TempDir()
		return func(t *testing.T) engine.Engine { return open(t, dir, Options{}) }
	})
}

// TestEngineSmall makes everything happen often: segments are full, files are closed, large appends are common.
func TestEngineSmall(t *testing.T) {
	enginetest.Test(t, func(t *testing.T) enginetest.Opener {
		dir := t.TempDir()
		return func(t *testing.T) engine.Engine {
			return open(t, dir, Options{SegmentSize: 4 << 10, InlineSize: 20, AdoptSize: 1 << 20, OpenFiles: 1})
		}
	})
}

func open(t testing.TB, dir string, opts Options) *Log {
	t.Helper()
	l, err := Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
