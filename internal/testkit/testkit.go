package testkit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daybook-dev/daybook/internal/filelock"
)

// Patience is how long anything may take that the kit waits for. It is far above what a slow machine with the race
// detector needs, and below the time limit of the test run.
const Patience = 3 * time.Minute

// TB is what the kit needs of a test. testing.TB has it, and so has the benchmark program, which is none.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	// Fatalf fails the test and does not return.
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
	Context() context.Context
}

var _ TB = testing.TB(nil)

// buildDir is where Binary builds; Main sets it for the time of the test run.
var buildDir string

// Main is the body of TestMain: it lets the test binary stand in for the commands that Writer describes, runs the tests,
// checks that no goroutine is left but those that are known, and removes what Binary built.
func Main(m *testing.M, known ...goleak.Option) {
	if runAsWriter(os.Args[1:]) {
		return
	}
	dir, err := os.MkdirTemp("", "daybook-testkit-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "testkit:", err)
		os.Exit(1)
	}
	buildDir = dir
	goleak.VerifyTestMain(testRun{m}, append(known, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "testkit:", err)
		}
		os.Exit(code)
	}))...)
}

// testRun ends what outlives the single tests, before goroutines are counted.
type testRun struct{ *testing.M }

// Run runs the tests.
func (r testRun) Run() int {
	code := r.M.Run()
	if err := removeShared(); err != nil {
		fmt.Fprintln(os.Stderr, "testkit:", err)
	}
	return code
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if buildDir == "" {
		return "", errors.New("testkit: TestMain must call testkit.Main")
	}
	if path, ok := buildShared(context.Background()); ok {
		return path, nil
	}
	return Build(context.Background(), buildDir)
})

// buildShared builds into a place that test runs share, so that the linker has nothing to do where nothing changed, and links the
// binary into buildDir, so that it stays. It does nothing if another test run is building.
func buildShared(ctx context.Context) (path string, ok bool) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", false
	}
	_, file, _, _ := runtime.Caller(0)
	sum := sha256.Sum256([]byte(file)) // each working tree has its own
	dir := filepath.Join(cache, "daybook-testkit", fmt.Sprintf("%x-race-%v", sum[:8], raceEnabled))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", false
	}
	lock, err := filelock.TryLock(filepath.Join(dir, "LOCK"))
	if err != nil {
		return "", false
	}
	defer func() { _ = lock.Unlock() }()
	shared, err := Build(ctx, dir)
	if err != nil {
		return "", false // Build will say why
	}
	path = filepath.Join(buildDir, filepath.Base(shared))
	return path, os.Link(shared, path) == nil
}

// Binary returns the path of the daybook binary, built at the first call of a test run.
func Binary(t TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return path
}

// Build builds the daybook binary into dir and returns its path. It has the race detector if the caller has.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "daybook")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	args := []string{"build", "-buildvcs=false", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/daybook-dev/daybook/cmd/daybook")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("testkit: build daybook: %w\n%s", err, out)
	}
	return path, nil
}
