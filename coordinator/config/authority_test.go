package config_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	good   = "projects: {local: {retention: 1d}}\n"
	better = "projects: {local: {retention: 2d}, ci: }\n"
	bad    = "projects: {local: {retention: 2 days}, CI: }\n"
)

// log is a log that is read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines takes the lines with a text that are new.
func (l *log) lines(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := strings.Count(l.b.String(), text)
	l.b.Reset()
	return n
}

func (l *log) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func retention(a *config.Authority) time.Duration {
	p, err := a.Project("local")
	if err != nil {
		return -1
	}
	return p.Retention
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "daybook.yaml")
	for name, prepare := range map[string]func(){
		"absent":      func() {},
		"a directory": func() { path = dir },
		"bad":         func() { path = filepath.Join(dir, "bad.yaml"); write(t, path, bad) },
	} {
		prepare()
		if _, err := config.Open(path, slog.New(slog.DiscardHandler)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "daybook.yaml")
	write(t, path, good)
	var lines log
	a, err := config.Open(path, lines.logger())
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(a)
	metrics := func(success float64, version string) {
		t.Helper()
		families, err := reg.Gather()
		if err != nil || len(families) != 3 {
			t.Fatalf("metrics: %v, %v", families, err)
		}
		if got := families[0].GetMetric()[0].GetLabel()[0].GetValue(); got != version {
			t.Errorf("metrics tell of version %s, not %s", got, version)
		}
		if got := families[2].GetMetric()[0].GetGauge().GetValue(); got != success {
			t.Errorf("metrics tell of success: %v, not %v", got, success)
		}
		if got := families[1].GetMetric()[0].GetGauge().GetValue(); time.Since(time.Unix(int64(got), 0)).Abs() > time.Minute {
			t.Errorf("metrics tell of a success at %v", got)
		}
	}
	first := a.Current().Version
	metrics(1, first)

	write(t, path, better)
	if err := a.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := retention(a); got != 48*time.Hour {
		t.Errorf("after the change, %v are kept", got)
	}
	second := a.Current().Version
	metrics(1, second)
	if n := lines.lines("has changed"); n != 1 {
		t.Errorf("the change is logged %d times", n)
	}

	write(t, path, bad)
	for range 2 {
		if err := a.Reload(); !fault.Is(err, fault.Invalid) || strings.Count(err.Error(), path) != 2 {
			t.Errorf("reload of a bad file: %v", err)
		}
		if n := lines.lines("cannot be taken"); n != 1 {
			t.Errorf("what was asked for fails, and is logged %d times", n)
		}
	}
	if retention(a) != 48*time.Hour || a.Current().Version != second {
		t.Error("the version before does not stay")
	}
	metrics(0, second)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err == nil || retention(a) != 48*time.Hour {
		t.Errorf("without the file: %v", err)
	}
	write(t, path, better)
	if err := a.Reload(); err != nil {
		t.Error(err)
	}
	metrics(1, second)
	if n := lines.lines("has changed"); n != 0 {
		t.Error("a change is logged that was none")
	}
}

// watch runs f beside an Authority that watches a file, under a clock of its own; settle waits until the file was looked at often
// enough.
func watch(t *testing.T, path string, f func(a *config.Authority, lines *log, settle func())) {
	synctest.Test(t, func(t *testing.T) {
		var lines log
		a, err := config.Open(path, lines.logger())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { a.Watch(ctx) })
		f(a, &lines, func() {
			time.Sleep(5 * time.Second)
			synctest.Wait()
		})
		cancel()
		watching.Wait()
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "daybook.yaml")
	write(t, path, good)
	watch(t, path, func(a *config.Authority, lines *log, settle func()) {
		settle()
		if n := lines.lines("level="); n != 0 {
			t.Errorf("nothing happens, and %d lines are logged", n)
		}
		write(t, path, better)
		settle()
		if got, n := retention(a), lines.lines("has changed"); got != 48*time.Hour || n != 1 {
			t.Errorf("after a change, %v are kept, and it is logged %d times", got, n)
		}
		write(t, path, bad)
		for range 3 {
			settle()
		}
		if got, n := retention(a), lines.lines("cannot be taken"); got != 48*time.Hour || n != 1 {
			t.Errorf("after a mistake, %v are kept, and it is logged %d times", got, n)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			settle()
		}
		if got, n := retention(a), lines.lines("cannot be taken"); got != 48*time.Hour || n != 1 {
			t.Errorf("without the file, %v are kept, and it is logged %d times", got, n)
		}
		write(t, path, better)
		settle()
		if n := lines.lines("good again"); n != 1 {
			t.Errorf("the end of the trouble is logged %d times", n)
		}
	})
}

// Whoever replaces the file does so by renaming another one, or, as Kubernetes does, by renaming a symbolic link above it.
func TestWatchOfReplacedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	join := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	for name, text := range map[string]string{"v1": good, "v2": better} {
		if err := os.Mkdir(join(name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, join(name, "daybook.yaml"), text)
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, join("new")); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
		if err := os.Rename(join("new"), join(name)); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link(filepath.Join("..data", "daybook.yaml"), "daybook.yaml")
	watch(t, join("daybook.yaml"), func(a *config.Authority, _ *log, settle func()) {
		link("v2", "..data")
		settle()
		if got := retention(a); got != 48*time.Hour {
			t.Errorf("after the directory was swapped, %v are kept", got)
		}
		write(t, join("other"), good)
		if err := os.Rename(join("other"), join("daybook.yaml")); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := retention(a); got != 24*time.Hour {
			t.Errorf("after the file was replaced, %v are kept", got)
		}
	})
}

// A file that is written piece by piece is valid long before it is whole.
func TestWatchOfUnfinishedFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "daybook.yaml")
	write(t, path, better)
	watch(t, path, func(a *config.Authority, lines *log, settle func()) {
		version := a.Current().Version
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.WriteString(f, "projects:\n"); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if _, err := io.WriteString(f, "  p"+string(rune('0'+i))+": {}\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(1900 * time.Millisecond)
			synctest.Wait()
			if got := a.Current().Version; got != version {
				t.Fatalf("after %d pieces the file is taken for whole", i)
			}
		}
		settle()
		if got := len(a.Current().Projects); got != 10 {
			t.Errorf("in the end there are %d projects", got)
		}
		if n := lines.lines("level="); n != 1 {
			t.Errorf("it is logged %d times", n)
		}
	})
}

// Reloading while others read is safe.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "daybook.yaml")
	write(t, path, good)
	a, err := config.Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 50 {
				switch (i + j) % 3 {
				case 0:
					_ = a.Reload()
				case 1:
					a.Current()
				case 2:
					metrics := make(chan prometheus.Metric, 3)
					a.Collect(metrics)
				}
			}
		})
	}
	all.Wait()
}
