package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/daybook-dev/daybook/archive"
	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/internal/datadir"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// configName is the configuration's file in the data directory, which is used when no other is given.
const configName = "config.yaml"

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Check the configuration's file."`
	Show  configShowCmd  `cmd:"" help:"Print the configuration with all defaults."`
}

// configFlags name a file.
type configFlags struct {
	dataFlags
	File string `arg:"" optional:"" help:"File; \"-\" is stdin. By default the one of DAYBOOK_CONFIG, or config.yaml in the data directory." env:"DAYBOOK_CONFIG"`
}

// read returns the configuration that the flags name, and what it is called.
func (f *configFlags) read(e *env) (*config.Config, string, error) {
	name, from := f.File, io.Reader(e.stdin)
	if name == "" {
		dir := f.Data
		if dir == "" {
			var err error
			if dir, err = datadir.Default(); err != nil {
				return nil, "", err
			}
		}
		name = filepath.Join(dir, configName)
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
			return config.Default().Current(), "no file, the defaults", nil
		}
	}
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, "", fault.New(fault.Invalid, "read the configuration: %w", err)
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, config.MaxFile+1)) // what is larger is refused
	if err != nil {
		return nil, "", fault.New(fault.Invalid, "read the configuration: %w", err)
	}
	if name == "-" {
		name = "stdin"
	}
	c, err := config.Parse(name, text)
	if p, ok := errors.AsType[*config.Problems](err); ok {
		// The lines are as compilers print them, so that editors find the places.
		fmt.Fprintln(e.stderr, p)
		return nil, "", &exitError{code: exitFailure}
	}
	return c, name, err
}

type configCheckCmd struct{ configFlags }

func (c *configCheckCmd) Help() string {
	return "Prints everything that is wrong, as FILE:LINE:COLUMN: and what it is, and exits with 1. Exits with 0 if a server would take the file, and with 2 if there is none to read. " +
		"docs/config.md describes the file."
}

func (c *configCheckCmd) Run(e *env) error {
	conf, name, err := c.read(e)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s: good; %s, version %s\n", name, plural(int64(len(conf.Projects)), "project"), conf.Version)
	return nil
}

type configShowCmd struct{ configFlags }

func (c *configShowCmd) Help() string {
	return "Prints a file that says the same as the one given, with everything spelled out that it leaves to the defaults."
}

func (c *configShowCmd) Run(e *env) error {
	conf, _, err := c.read(e)
	if err != nil {
		return err
	}
	text, err := conf.Text()
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(text)
	return err
}

// openSettings reads the configuration.
func (s *system) openSettings(context.Context) error {
	path := cmp.Or(s.Config, s.Dir.Join(configName))
	if _, err := os.Stat(path); s.Config == "" && errors.Is(err, os.ErrNotExist) {
		s.settings = config.Default()
	} else if s.settings, err = config.Open(path, s.Log); err != nil {
		return err
	}
	return s.metrics.Register(s.settings)
}

// watchSettings takes the configuration's file when it changes, and when a server gets SIGHUP. Without a file, that signal ends the
// process as it ends others.
func (s *system) watchSettings(ctx context.Context) error {
	if s.settings.File() == "" {
		return nil
	}
	s.working.Go(func() { s.settings.Watch(ctx) })
	if s.Kind != datadir.Server {
		return nil
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	s.working.Go(func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-hangups:
				_ = s.settings.Reload() // it is logged
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// projectBuckets returns the buckets that projects have of their own.
func (s *system) projectBuckets() map[types.Project]string {
	urls := make(map[types.Project]string)
	for name, p := range s.settings.Current().Projects {
		if p.Archive.Bucket != "" {
			urls[name] = p.Archive.Bucket
		}
	}
	return urls
}

// projectDensity returns what a project wants of the indexes of its archives.
func (s *system) projectDensity(name types.Project) archive.Density {
	p, err := s.settings.Project(name)
	if err != nil {
		return archive.Density{} // what it has is archived all the same
	}
	a := p.Archive
	return archive.Density{StreamRange: int64(a.StreamRange), PrefixRange: int64(a.PrefixRange), ByteRange: int64(a.ByteRange)}
}
