package config

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// lookEvery is how often Watch looks at the file.
const lookEvery = 2 * time.Second

// Authority holds the configuration that applies.
type Authority struct {
	path string // empty: no file
	log  *slog.Logger

	// reading is held while the file is read and taken, so that an older content does not replace a newer one.
	reading sync.Mutex
	tried   sight // what was taken last, or found wanting

	mu      sync.Mutex
	current *Config
	taken   time.Time // when current was
	failed  bool      // the last attempt
}

// sight is what a look at the file saw: its content, or why there is none.
type sight struct{ text, err string }

// Default returns an Authority that needs no file: the project local exists, without limits.
func Default() *Authority { return Fixed(defaults()) }

// Fixed returns an Authority of a configuration that stays as it is.
func Fixed(c *Config) *Authority {
	return &Authority{log: slog.New(slog.DiscardHandler), current: c, taken: time.Now()}
}

// Open returns the configuration in a file. A file with errors is refused with all of them, with an error of kind Invalid that
// wraps Problems.
func Open(path string, log *slog.Logger) (*Authority, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	c, err := Parse(path, text)
	if err != nil {
		return nil, err
	}
	a := Fixed(c)
	a.path, a.log, a.tried = path, log, sight{text: string(text)}
	return a, nil
}

// readFile reads a file of a reasonable size. Nothing else than a file is read, since that may wait for ever.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the configuration: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1)) // Parse refuses what is larger
	if err != nil {
		return nil, fault.New(fault.Transient, "read the configuration: %w", err)
	}
	return text, nil
}

// File returns the path of the file; empty if there is none.
func (a *Authority) File() string { return a.path }

// Current returns the configuration that applies now.
func (a *Authority) Current() *Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current
}

// Project returns a project as it is configured now, or an error of kind NotFound. To callers it must look like a lack of
// permission, so that they do not learn which projects exist.
func (a *Authority) Project(name types.Project) (*Project, error) {
	if p := a.Current().Projects[name]; p != nil {
		return p, nil
	}
	return nil, fault.New(fault.NotFound, "project %q is not configured", name)
}

// Reload takes the file as it is now. When it cannot be read or has errors, these are logged and returned, and the version before
// stays. Without a file, nothing happens.
func (a *Authority) Reload() error {
	if a.path == "" {
		return nil
	}
	a.reading.Lock()
	defer a.reading.Unlock()
	text, err := readFile(a.path)
	return a.take(seen(text, err), err)
}

// Watch takes the file whenever it changes, until ctx ends. What is new is taken when it was seen twice, two seconds apart, so
// that a file that is being written is not taken for whole.
func (a *Authority) Watch(ctx context.Context) {
	if a.path == "" {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var before sight
	for {
		select {
		case <-tick.C:
			before = a.look(before)
		case <-ctx.Done():
			return
		}
	}
}

// look takes what is new and was also seen by the look before. It returns what it sees.
func (a *Authority) look(before sight) sight {
	a.reading.Lock()
	defer a.reading.Unlock()
	text, err := readFile(a.path)
	now := seen(text, err)
	if now == before && now != a.tried {
		_ = a.take(now, err) // it is logged
	}
	return now
}

func seen(text []byte, err error) sight {
	if err != nil {
		return sight{err: err.Error()}
	}
	return sight{text: string(text)}
}

// take makes what was read the current version, or says why that stays as it is.
func (a *Authority) take(now sight, err error) error {
	a.tried = now
	var c *Config
	if err == nil {
		c, err = Parse(a.path, []byte(now.text))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	wasFailed := a.failed
	a.failed = err != nil
	if err != nil {
		a.log.Error("the configuration cannot be taken; the version before stays", "version", a.current.Version, "error", err)
		return err
	}
	a.taken = time.Now()
	switch {
	case c.Version != a.current.Version:
		a.log.Warn("the configuration has changed", "version", c.Version, "before", a.current.Version, "projects", len(c.Projects))
		a.current = c
	case wasFailed:
		a.log.Warn("the configuration's file is good again", "version", c.Version)
	}
	return nil
}
